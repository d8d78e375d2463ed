import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { ROOT } from './config.ts'

/** The schema for editors, as it is committed. */
export const editorSchema = JSON.parse(readFileSync(join(ROOT, 'sallyport.schema.json'), 'utf8'))

/** The validator that Fastify brings along. */
const require = createRequire(createRequire(import.meta.url).resolve('fastify'))
const Ajv = createRequire(require.resolve('@fastify/ajv-compiler'))('ajv/dist/2020.js').default
const ajv = new Ajv({ strictTypes: false })
const validate = ajv.compile(editorSchema)

/** What an editor would say of a document; nothing when it is as the schema says. */
export function editorComplaint(document: unknown): string {
  return validate(document) ? '' : ajv.errorsText(validate.errors)
}
