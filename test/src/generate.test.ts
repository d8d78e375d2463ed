import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { findDrift, generate } from '../../src/generate.ts'
import { ROOT } from '../support/config.ts'

/** A copy of what is generated and of what it is generated from. */
function copy(t: Test): string {
  const root = t.testdir({})
  for (const path of ['README.md', '.env.example', 'sallyport.schema.json', 'docs', 'openapi', 'examples', 'LICENSE'])
    cpSync(join(ROOT, path), join(root, path), { recursive: true })
  mkdirSync(join(root, 'bench'))
  return root
}

t.test('CFG-08 what is generated is what is committed', async t => {
  for (const [file, text] of await generate()) t.equal(readFileSync(join(ROOT, file), 'utf8'), text, file)
})

t.test('drift names each file, and each promise of the documentation that is not kept', async t => {
  const root = copy(t)
  const before = await findDrift(root)
  const edit = (file: string, from: RegExp, to: string): void => {
    const text = readFileSync(join(root, file), 'utf8')
    t.match(text, from)
    writeFileSync(join(root, file), text.replace(from, to))
  }
  edit('sallyport.schema.json', /"title"/, '"titel"')
  edit('docs/cors.md', /\*\*`cors`\*\*/, 'cors')
  edit('docs/ip-filter.md', /<!-- options: ip_filter -->/, '<!-- options: logging -->')
  edit('docs/walk.md', /# The walk/, '[nowhere](nowhere.md)\n# The walk')
  edit('.env.example', /^#PORT=.*\n/m, '')
  edit('docs/errors.md', /^\| `not_found`.*\n/m, '')
  edit('docs/administration.md', /^\| `DELETE .*\n/m, '')
  edit('docs/administration.md', /, `\/health\/ready`/, '')
  rmSync(join(root, 'openapi/gateway.json'))
  const found = (await findDrift(root)).filter(sentence => !before.includes(sentence))
  t.strictSame(found.sort(), [
    '.env.example does not name PORT',
    'No page of docs/ names DELETE /admin/rate-limits/{consumer}',
    'No page of docs/ names GET /health/ready',
    'docs/ has no table of the options of "ip_filter": <!-- options: ip_filter --><!-- /options -->',
    'docs/cors.md is not what "npm run generate" makes',
    'docs/errors.md does not explain not_found (404)',
    'docs/ip-filter.md is not what "npm run generate" makes',
    'docs/walk.md links to nowhere.md, which is not there',
    'openapi/gateway.json is not what "npm run generate" makes',
    'sallyport.schema.json is not what "npm run generate" makes'
  ])
})

t.test('a table of what is no key is an error that names the page', async t => {
  const root = copy(t)
  writeFileSync(join(root, 'docs', 'new.md'), '<!-- options: crs --><!-- /options -->')
  await t.rejects(generate(root), { message: 'docs/new.md: "options: crs": there is no key and no concern "crs"' })
})
