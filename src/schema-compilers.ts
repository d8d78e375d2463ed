import { createRequire } from 'node:module'

const require = createRequire(createRequire(import.meta.url).resolve('fastify'))

type Builder = (...args: unknown[]) => (...args: unknown[]) => unknown

/**
 * Fastify's compilers for the schemas of requests and answers, loaded when a route needs them. Our own endpoints do not, and
 * loading them is a fifth of a start.
 */
export const lazyCompilers = {
  buildValidator: ((...args) => (require('@fastify/ajv-compiler') as () => Builder)()(...args)) as Builder,
  buildSerializer: ((...args) =>
    (require('@fastify/fast-json-stringify-compiler') as () => Builder)()(...args)) as Builder
}
