import t from 'tap'
import { canonicalEnd, canonicalise, matchable, type PathProblem } from '../../../src/proxy/path.ts'

/** The canonical path, or the reason for the refusal. */
function read(path: string): string {
  const result = canonicalise(path)
  return typeof result === 'string' ? result : result.path
}

const kept: [name: string, path: string][] = [
  ['the root', '/'],
  ['a plain path', '/api/v1/orders'],
  ['a trailing slash', '/api/'],
  ['dots that are no dot segments', '/a.b/..c/...'],
  ['a parameter', '/a;x=1/b'],
  ['a parameter that looks like a dot segment', '/a;..'],
  ['sub-delimiters', "/a!$&'()*+,;=:@b"],
  ['H-28 an escaped percent sign, which is not decoded again', '/%252e%252e/a%252F'],
  ['H-33 an escaped number sign', '/a%23b'],
  ['H-33 an escaped question mark', '/a%3Fb'],
  ['an escaped slash', '/a%2Fb'],
  ['an escaped semicolon', '/a%3Bx'],
  ['UTF-8', '/caf%C3%A9/%E2%82%AC/%F0%9F%98%80'],
  ['what browsers leave as it is', '/a|b^c`d{e}[f]"g"<h>']
]

t.test('RTE-11 AZN-13 a canonical path stays as it is', async t => {
  for (const [name, path] of kept) t.equal(read(path), path, name)
})

const changed: [name: string, path: string, canonical: string][] = [
  ['H-26 a dot segment', '/public/../admin', '/admin'],
  ['H-26 one with escapes', '/public/%2e%2e/admin', '/admin'],
  ['H-26 one with escapes in upper case', '/public/%2E%2E/admin', '/admin'],
  ['H-26 one half escaped', '/public/.%2e/admin', '/admin'],
  ['H-26 the other half', '/public/%2e./admin', '/admin'],
  ['H-26 one at the end', '/a/b/..', '/a/'],
  ['H-30 two slashes', '//admin', '/admin'],
  ['H-30 three slashes', '///', '/'],
  ['H-30 slashes within', '/a//b///c', '/a/b/c'],
  ['H-30 a dot', '/./admin', '/admin'],
  ['H-30 a dot at the end', '/admin/.', '/admin/'],
  ['H-31 an escaped letter', '/%61dmin', '/admin'],
  ['an escaped tilde', '/%7Euser', '/~user'],
  ['escapes in lower case', '/caf%c3%a9', '/caf%C3%A9'],
  ['H-38 what could be read as a host', '//evil.test/x', '/evil.test/x'],
  ['H-38 what could be read as a URL', '/http://evil.test/x', '/http:/evil.test/x'],
  ['all of it', '/a/%2e/b//../c%7e/./%44', '/a/c~/D']
]

t.test('RTE-11 AZN-13 every spelling of a path becomes the same one', async t => {
  for (const [name, path, canonical] of changed) t.equal(read(path), canonical, name)
})

const refused: [name: string, path: string, problem: PathProblem][] = [
  ['H-26 above the root', '/a/../../', 'above_root'],
  ['H-26 above the root at once', '/..', 'above_root'],
  ['H-27 an encoded slash behind dots', '/public/..%2fadmin', 'dot_segment_with_parameter'],
  ['H-27 encoded slashes before and behind', '/a%2f..%2fb', 'dot_segment_with_parameter'],
  ['H-27 encoded slash and dots', '/a%2f%2e%2e', 'dot_segment_with_parameter'],
  ['H-27 a single dot', '/a%2F.', 'dot_segment_with_parameter'],
  ['H-27 an encoded backslash', '/a/..%5cadmin', 'backslash'],
  ['H-27 a backslash', '/a\\..\\admin', 'backslash'],
  ['H-29 dots with an empty parameter', '/public/..;/admin', 'dot_segment_with_parameter'],
  ['H-29 dots with a parameter', '/public/..;x=1/admin', 'dot_segment_with_parameter'],
  ['H-29 one dot with a parameter', '/.;/admin', 'dot_segment_with_parameter'],
  ['H-29 an encoded semicolon', '/public/..%3b/admin', 'dot_segment_with_parameter'],
  ['H-29 everything encoded', '/public/%2e%2e%3B/admin', 'dot_segment_with_parameter'],
  ['H-29 a parameter of nothing', '/;x=1/admin', 'empty_segment_with_parameter'],
  ['H-29 a parameter of nothing, encoded', '/a/%3bx/admin', 'empty_segment_with_parameter'],
  ['H-29 a parameter of nothing behind two slashes', '//;/admin', 'empty_segment_with_parameter'],
  ['H-29 a parameter of nothing at the end', '/admin/;', 'empty_segment_with_parameter'],
  ['H-32 NUL', '/a%00.txt', 'control_character'],
  ['H-32 CR LF', '/a%0d%0aX:1', 'control_character'],
  ['H-32 DEL', '/a%7f', 'control_character'],
  ['H-32 an overlong slash', '/a%c0%af', 'invalid_utf8'],
  ['H-32 an overlong dot', '/%c0%ae%c0%ae/', 'invalid_utf8'],
  ['H-32 an overlong slash in three bytes', '/a%e0%80%af', 'invalid_utf8'],
  ['H-32 a surrogate', '/%ed%a0%80', 'invalid_utf8'],
  ['H-32 beyond Unicode', '/%f4%90%80%80', 'invalid_utf8'],
  ['H-32 a lone continuation', '/%80', 'invalid_utf8'],
  ['H-32 a sequence cut short by a letter', '/%c3a', 'invalid_utf8'],
  ['H-32 no hexadecimal digits', '/%zz', 'bad_escape'],
  ['H-32 one digit', '/%4', 'bad_escape'],
  ['H-32 a percent sign at the end', '/a%', 'bad_escape'],
  ['H-32 a Unicode escape of another world', '/%u002e', 'bad_escape'],
  ['H-32 a sign', '/%+1', 'bad_escape'],
  ['H-32 a raw byte', '/caf\xe9', 'bad_character'],
  ['H-32 a space', '/a b', 'bad_character'],
  ['H-32 a tab', '/a\tb', 'bad_character'],
  ['H-33 a fragment', '/a#b', 'bad_character'],
  ['H-38 a URL', 'http://evil.test/', 'not_a_path'],
  ['H-16 an asterisk', '*', 'not_a_path'],
  ['nothing', '', 'not_a_path']
]

t.test('RTE-11 AZN-13 what two parsers could read in two ways is refused', async t => {
  for (const [name, path, problem] of refused) t.equal(read(path), problem, name)
})

t.test('RTE-11 an encoded slash is told of, since only some routes take it', async t => {
  t.same(canonicalise('/a%2fb'), { path: '/a%2Fb', encodedSlash: true })
  t.same(canonicalise('/a%252fb'), { path: '/a%252fb', encodedSlash: false })
  t.same(canonicalise('/a/./b'), { path: '/a/b', encodedSlash: false })
})

t.test('H-37 long rows of dot segments take no longer per character than short ones', async t => {
  t.equal(read(`/${'../'.repeat(60)}`), 'above_root')
  t.equal(read(`/${'a/../'.repeat(2000)}`), '/')
  t.equal(read(`/${'a/'.repeat(2000)}${'../'.repeat(2000)}`), '/')
  t.equal(read('/'.repeat(8000)), '/')
  t.equal(read(`/${'%2e%2e%2f'.repeat(900)}`), 'dot_segment_with_parameter')
})

t.test('RTE-11 the short cut for canonical targets ends where the path does', async t => {
  t.equal(canonicalEnd('/'), 1)
  t.equal(canonicalEnd('/api/v1'), 7)
  t.equal(canonicalEnd('/api?x=%zz#'), 4)
  t.equal(canonicalEnd('/?'), 1)
  t.equal(canonicalEnd('/?/../'), 1)
  for (const target of [
    '',
    '*',
    'a',
    '?',
    '//',
    '/.',
    '/a//b',
    '/a/./b',
    '/a/../b',
    '/;x',
    '/%41',
    '/a#',
    '/a b',
    '/\\',
    '/é',
    '/\0'
  ])
    t.equal(canonicalEnd(target), -1, target)
})

t.test('H-29 H-31 AZN-13 routes see a path in lower case and without its parameters', async t => {
  t.equal(matchable('/Admin'), '/admin')
  t.equal(matchable('/admin;x=1'), '/admin')
  t.equal(matchable('/a;b;c=d/E;f/g'), '/a/e/g')
  t.equal(matchable('/%C3%A9'), '/%c3%a9')
})

/** Pieces that make interesting paths when they are put next to each other. */
const PIECES = [
  '/',
  '//',
  '.',
  '..',
  'a',
  'B',
  ';',
  ';x=1',
  '%2e',
  '%2E',
  '%2f',
  '%5c',
  '%3b',
  '%25',
  '%41',
  '%c3%a9',
  '%ff',
  '%z',
  '%',
  '%0a',
  '~',
  'é',
  '-',
  ':',
  '?',
  '#',
  ' ',
  '"'
]

function randomPaths(count: number): string[] {
  let seed = 20260101
  const next = (below: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  return Array.from(
    { length: count },
    () => `/${Array.from({ length: next(10) }, () => PIECES[next(PIECES.length)]).join('')}`
  )
}

/**
 * Whether a lenient server would go up somewhere: one that decodes once more, takes backslashes for slashes and forgets
 * about parameters before it looks for dot segments.
 */
function climbsLeniently(path: string): boolean {
  const decoded = path
    .replace(/%(2e|2f|5c|3b)/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
    .replaceAll('\\', '/')
  return decoded.split('/').some(segment => /^\.\.?(;|$)/.test(segment))
}

t.test(
  'RTE-11 AZN-13 of any path: what is canonical stays so, and holds nothing that another server could resolve',
  async t => {
    let accepted = 0
    for (const target of randomPaths(20_000)) {
      const end = canonicalEnd(target)
      const path = target.split('?')[0] as string
      const result = canonicalise(path)
      if (end >= 0 && (typeof result === 'string' || result.path !== target.slice(0, end) || result.encodedSlash))
        t.fail(`the short cut and the long way do not agree on ${target}`)
      if (typeof result === 'string') continue
      accepted++
      if (read(result.path) !== result.path)
        t.fail(`${path} becomes ${result.path}, which becomes ${read(result.path)}`)
      if (!result.encodedSlash && canonicalEnd(result.path) === -1 && !/%|\.\.|\/\./.test(result.path))
        t.fail(`${result.path} is canonical and not plain`)
      if (climbsLeniently(result.path))
        t.fail(`${path} becomes ${result.path}, which a lenient server resolves further`)
    }
    t.ok(accepted > 2000, `${accepted} paths were accepted`)
  }
)
