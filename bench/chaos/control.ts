import { token } from '../tokens.ts'

/** The gateway's own endpoints, as an administrator calls them. */
export class Control {
  readonly #port: number
  readonly #authorization = `Bearer ${token('root', undefined, ['admin'])}`

  constructor(port: number) {
    this.#port = port
  }

  async call(method: string, path: string, body?: object) {
    const response = await fetch(`http://127.0.0.1:${this.#port}${path}`, {
      method,
      headers: { authorization: this.#authorization, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) })
    })
    const text = await response.text()
    return { status: response.status, text, json: text.startsWith('{') ? JSON.parse(text) : undefined }
  }
}
