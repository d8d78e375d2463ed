import t from 'tap'
import { covers, parametersOf, parsePattern } from '../../../src/routing/pattern.ts'

t.test('RTE-02 RTE-15 C-16 paths are exact, parametric or a prefix, in every spelling of the seeds', async t => {
  const kinds: [string, string, string][] = [
    ['/users', 'exact', '/users'],
    ['/users/', 'exact', '/users'],
    ['/', 'exact', ''],
    ['/Users', 'exact', '/users'],
    ['/users/{id}', 'parametric', '/users'],
    ['/users/:id', 'parametric', '/users'],
    ['/users/*/posts', 'parametric', '/users'],
    ['/users/**', 'prefix', '/users'],
    ['/users/*', 'prefix', '/users'],
    ['/**', 'prefix', ''],
    ['/*', 'prefix', ''],
    ['/{tenant}/users/**', 'prefix', '']
  ]
  for (const [source, kind, staticPrefix] of kinds) t.match(parsePattern(source), { kind, staticPrefix }, source)
})

t.test('CFG-08 what is no path says what to write instead', async t => {
  const wrong: [string, RegExp][] = [
    ['users', /must start with "\/", as in "\/users"/],
    ['/a?b=1', /use "query"/],
    ['/a//b', /empty segment/],
    ['/a/../b', /dot segments/],
    ['/a/**/b', /at its end only/],
    ['/a/x{id}', /a whole segment/],
    ['/a/{1d}', /a whole segment/],
    ['/a/v*', /a whole segment/],
    ['/a/{id}/{id}', /"id" twice/],
    ['/a b', /no canonical path/],
    ['/a;b', /no canonical path/],
    ['/a#b', /no canonical path/]
  ]
  for (const [source, message] of wrong) t.throws(() => parsePattern(source), { message }, source)
})

t.test('RTE-15 parameters are found by their place, and keep their escapes', async t => {
  const pattern = parsePattern('/projects/{project}/*/tasks/{task}')
  t.same(
    { ...parametersOf(pattern, '/projects/a%2Fb/x/tasks/%3F') },
    { project: 'a%2Fb', task: '%3F' },
    'the wildcard has no name'
  )
})

t.test('C-16 a pattern covers another when it matches all that the other matches', async t => {
  const pairs: [string, string, boolean][] = [
    ['/a/**', '/a/b', true],
    ['/a/**', '/a', true],
    ['/a/**', '/a/b/**', true],
    ['/a/{x}', '/a/b', true],
    ['/a/{x}/**', '/a/b/c', true],
    ['/a/b', '/a/{x}', false],
    ['/a/{x}', '/a/**', false],
    ['/a/b/**', '/a/**', false],
    ['/a', '/ab', false],
    ['/{x}/b', '/a/{y}', false]
  ]
  for (const [outer, inner, expected] of pairs)
    t.equal(covers(parsePattern(outer), parsePattern(inner)), expected, `${outer} covers ${inner}`)
})
