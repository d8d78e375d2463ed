import { registerHooks } from 'node:module'
import { extname } from 'node:path'

/**
 * Once this is imported, what anybody imports as `sallyport` is this gateway itself, wherever their files lie: with a copy of
 * it, or none, plugins would have no errors and no types that it knows.
 */
const own = (name: string): string => new URL(`./${name}${extname(import.meta.filename)}`, import.meta.url).href
const ours = new Map([
  ['sallyport', own('index')],
  ['sallyport/testing', own('testing')]
])
registerHooks({
  resolve(specifier, context, next) {
    const url = ours.get(specifier)
    return url === undefined ? next(specifier, context) : { url, shortCircuit: true }
  }
})
