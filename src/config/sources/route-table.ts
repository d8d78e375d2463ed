import { setPlace } from '../located.ts'

/** One line of seed 004's routing rules: `/api/users/*  → core-service:3002`. */
const LINE = /^\s*(\/\S*)\s*(?:→|->)\s*(.+?)\s*$/

/** Whether a file is a table of arrows rather than YAML. */
export function isRouteTable(text: string): boolean {
  const lines = text.split('\n').filter(line => line.trim() !== '' && !line.trimStart().startsWith('#'))
  return lines.length > 0 && lines.every(line => LINE.test(line))
}

/**
 * Reads a table of arrows: `PATTERN → SERVICE:PORT`, with `(WebSocket upgrade)` behind it for a route that upgrades. Lines
 * that point at words name endpoints of the gateway itself, which are there anyway.
 */
export function parseRouteTable(text: string, file: string): Record<string, unknown> {
  const routes: Record<string, unknown>[] = []
  const services: Record<string, unknown> = {}
  for (const [i, line] of text.split('\n').entries()) {
    const [, path, target] = LINE.exec(line) ?? []
    const match = /^([A-Za-z0-9._-]+):(\d+)\s*(\(WebSocket upgrade\))?$/i.exec(target ?? '')
    if (path === undefined || match === null) continue
    const [, name, port, websocket] = match
    const service = `${name}`
    const position = { file, line: i + 1, column: line.indexOf(path) + 1 }
    const place = { key: position, value: position }
    const route: Record<string, unknown> = { path, service, ...(websocket ? { websocket: true } : {}) }
    for (const key of Object.keys(route)) setPlace(route, key, place)
    setPlace(routes, routes.length, place)
    routes.push(route)
    if (!(service in services)) {
      const definition = { url: `http://${name}:${port}` }
      setPlace(definition, 'url', place)
      services[service] = definition
      setPlace(services, service, place)
    }
  }
  return { services, routes }
}
