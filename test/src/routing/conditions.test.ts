import t from 'tap'
import { compileCondition, compileRegex, RegexError } from '../../../src/routing/conditions.ts'

t.test('H-39 a regular expression that would take for ever takes no time, or is refused', async t => {
  const path = `/${'a'.repeat(8000)}!`
  for (const source of ['^/(a+)+$', '^/(a|a?)+$', '(x+x+)+y', '^/(.*a){25}b'])
    t.equal(compileRegex(source).test(path), false, source)
  const refused: [string, RegExp][] = [
    ['(?=a)', /\(\?=/],
    ['(a)\\1', /invalid escape sequence/],
    ['(a{1000}){1000}', /invalid repeat count/],
    ['(', /missing closing \)/],
    ['[a', /missing closing \]/],
    ['*a', /missing argument/]
  ]
  for (const [source, message] of refused) {
    t.throws(() => compileRegex(source), { message }, source)
    t.equal(thrownBy(() => compileRegex(source)) instanceof RegexError, true)
  }
})

t.test('RTE-06 expressions on paths do not care about case', async t => {
  t.equal(compileRegex('^/API/v[0-9]+/', true).test('/api/v2/x'), true)
  t.equal(compileRegex('^/API/').test('/api/x'), false)
})

t.test('RTE-07 a header or parameter is compared, begins with, matches or is there', async t => {
  const rows: [Parameters<typeof compileCondition>[1], string | undefined, boolean][] = [
    ['v2', 'v2', true],
    ['v2', 'v21', false],
    ['v2', undefined, false],
    ['', '', true],
    [{ equals: 'v2' }, 'v2', true],
    [{ prefix: 'curl/' }, 'curl/8', true],
    [{ prefix: 'curl/' }, 'Mozilla', false],
    [{ prefix: 'curl/' }, undefined, false],
    [{ regex: 'iPhone|Android' }, 'Mozilla (Android 16)', true],
    [{ regex: '^iPhone' }, 'Mozilla (iPhone)', false],
    [{ present: true }, '', true],
    [{ present: true }, undefined, false],
    [{ present: false }, undefined, true],
    [{ present: false }, 'x', false],
    [{ prefix: 'a', regex: 'z$' }, 'abz', true],
    [{ prefix: 'a', regex: 'z$' }, 'ab', false]
  ]
  for (const [settings, value, expected] of rows)
    t.equal(compileCondition('x', settings).test(value), expected, `${JSON.stringify(settings)} on ${value}`)
  t.equal(compileCondition('x', { prefix: 'a', regex: 'z$' }).wanted, 'begins with "a" and matches z$')
})

function thrownBy(act: () => unknown): unknown {
  try {
    return act()
  } catch (error) {
    return error
  }
}
