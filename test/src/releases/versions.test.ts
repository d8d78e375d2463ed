import t from 'tap'
import { apiVersion, successorOf, versionForms, withSegment } from '../../../src/releases/versions.ts'

t.test('VER-01 VER-05 the ways in which requests come to a route with versions', async t => {
  const forms = (settings: Parameters<typeof versionForms>[0], asking: boolean) =>
    versionForms(settings, asking).map(({ name, path, asked }) => [name, path, asked])
  t.same(forms({ path: '/api/{version}/x/**', versions: { v1: {}, v2: {} } }, true), [
    ['v1', '/api/v1/x/**', undefined],
    ['v1', '/api/x/**', '1'],
    ['v2', '/api/v2/x/**', undefined],
    ['v2', '/api/x/**', '2']
  ])
  t.same(forms({ path: '/:version', version: 3 }, true), [
    ['3', '/3', undefined],
    ['3', '/', '3']
  ])
  t.same(forms({ path: '/{version}/x', version: 'v1' }, false), [['v1', '/v1/x', undefined]])
  t.same(forms({ path: '/x', version: 'v1' }, true), [['v1', '/x', '1']])
  t.same(forms({ version: 'v1' }, true), [['v1', undefined, '1']])
})

t.test('VER-05 a path is sent as if it had said its version', async t => {
  const cases: [path: string, at: number, expected: string][] = [
    ['/api/x/7', 1, '/api/v2/x/7'],
    ['/x', 0, '/v2/x'],
    ['/', 0, '/v2'],
    ['/api', 1, '/api/v2'],
    ['/api/', 1, '/api/v2/'],
    ['/a/b/c', 2, '/a/b/v2/c']
  ]
  for (const [path, at, expected] of cases) t.equal(withSegment(path, { at, text: 'v2' }), expected, path)
})

t.test('VER-06 the successor is the next version that is not deprecated itself', async t => {
  const versions = { v10: { old: false }, v9: { old: true }, v2: { old: false }, v1: { old: true } }
  const next = (name: string) => successorOf(versions, name, ({ old }) => !old)
  t.same(['v1', 'v2', 'v9', 'v10'].map(next), ['v2', 'v10', 'v10', undefined])
})

t.test('VER-01 a plain number is an API’s version, anything else that of software', async t => {
  t.same(['2', 'v2', 'V3', '1.0.0', 'latest', '', undefined].map(apiVersion), [
    'v2',
    'v2',
    'v3',
    undefined,
    undefined,
    undefined,
    undefined
  ])
})
