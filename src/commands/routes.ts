import type { Command } from '../cli.ts'
import { reservedPatterns } from '../config/reserved-paths.ts'
import { type Loaded, loadConfiguration, withGeneration } from '../gateway.ts'
import { covers, parsePattern } from '../routing/pattern.ts'
import { compareRoutes } from '../routing/table.ts'
import { describeRoute } from './describe.ts'
import { sourcesOf } from './quickstart.ts'

const routes: Command = {
  summary: 'Lists routes in the order in which they are asked',
  async run(invocation) {
    const loaded = await loadConfiguration(sourcesOf(invocation))
    const { snapshot } = loaded
    const sorted = [...snapshot.routes].sort(compareRoutes)
    const reserved = reservedPatterns(snapshot).map(([, path]) => path)
    const own = [...reserved, ...(await pluginPaths(loaded, reserved))]
    if (invocation.json) {
      const list = sorted.map(route => ({
        id: route.id,
        path: route.label,
        methods: route.methods === undefined ? null : [...route.methods],
        hosts: route.hosts ?? null,
        service: route.service,
        enabled: route.enabled,
        concerns: Object.keys(route.concerns),
        at: route.at ?? null
      }))
      process.stdout.write(`${JSON.stringify({ reserved: own, routes: list })}\n`)
      return 0
    }
    const rows = sorted.map(route => [
      route.enabled ? '' : 'off',
      route.methods === undefined ? 'any' : [...route.methods].join('|'),
      `${route.hosts?.join('|') ?? ''}${route.label}`,
      route.service,
      describeRoute(route, snapshot),
      route.at === undefined ? '' : `${route.at.file}:${route.at.line}`
    ])
    const all = [...own.map(path => ['', 'any', path, '(gateway)', 'always first', '']), ...rows]
    const widths = [0, 1, 2, 3, 4].map(column => Math.max(...all.map(row => (row[column] as string).length)))
    for (const row of all)
      process.stdout.write(
        `${row
          .map((cell, i) => (i === 5 ? cell : cell.padEnd(widths[i] as number)))
          .join('  ')
          .trimEnd()}\n`
      )
    return 0
  }
}

/** Endpoints that plugins add, which are nowhere in the configuration. */
function pluginPaths(loaded: Loaded, reserved: readonly string[]): Promise<string[]> {
  const patterns = reserved.map(parsePattern)
  return withGeneration(loaded, ({ table }) =>
    table.routes.flatMap(found => {
      const { pattern } = found
      if (!('own' in found) || pattern === undefined || patterns.some(outer => covers(outer, pattern))) return []
      return [pattern.source]
    })
  )
}

export default routes
