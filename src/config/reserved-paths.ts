import type { IdentitySettings } from '../identity/settings.ts'
import { covers, type Pattern, parsePattern } from '../routing/pattern.ts'
import type { Draft } from './draft.ts'
import type { Path } from './located.ts'
import type { PathSettings } from './schema.ts'
import type { Snapshot } from './snapshot.ts'

/** The gateway's own paths always win, so a route below them would never be asked (C-11). */
export function checkReserved(draft: Draft): void {
  const own = ownPatterns(draft)
  for (const { route, path } of draft.routes) {
    const { pattern } = route
    if (pattern === undefined) continue
    const by = own.find(entry => covers(entry.pattern, pattern))
    if (by !== undefined) {
      draft.problems.conflict(
        [...path, 'path'],
        `is never reached: ${by.pattern.source} is the gateway's own; move that with paths.${by.key}, or this`
      )
    }
  }
}

function ownPatterns(draft: Draft): { key: keyof PathSettings; pattern: Pattern }[] {
  const own: { key: keyof PathSettings; pattern: Pattern }[] = []
  const settled = { ...draft.settled, identity: { ...draft.settled.identity, local: draft.local } }
  for (const [key, source] of reservedPatterns(settled)) {
    const path: Path = ['paths', key]
    const plain = draft.attempt(() => parsePattern(source.replace(/\/\*\*$/, '')), path)
    if (plain === undefined) continue
    if (plain.kind !== 'exact' || plain.segments.length === 0) {
      draft.problems.add(path, 'should be a plain path, such as /health, without wildcards and parameters')
      continue
    }
    const pattern = parsePattern(source)
    const other = own.find(entry => covers(entry.pattern, pattern) || covers(pattern, entry.pattern))
    if (other !== undefined) {
      const [first, second] =
        key in ((draft.document.paths as object | undefined) ?? {}) ? [key, other.key] : [other.key, key]
      draft.problems.add(['paths', first], `is in the way of paths.${second}`)
    }
    own.push({ key, pattern })
  }
  return own
}

/** The paths that the gateway keeps for itself, with the setting that moves them. */
export function reservedPatterns({
  paths,
  storage,
  identity
}: Pick<Snapshot, 'paths' | 'storage'> & { readonly identity: Pick<IdentitySettings, 'local' | 'oauth'> }): [
  key: keyof PathSettings,
  source: string
][] {
  const list: [key: keyof PathSettings, below: string][] = [
    ['health', '/**'],
    ['metrics', ''],
    ['api_metrics', '/**'],
    ['gateway', '/**'],
    ['admin', '/**'],
    ['batch', '']
  ]
  if (storage.database) list.push(['services', '/**'], ['traffic', ''], ['usage', '/**'], ['errors', ''])
  if (identity.oauth !== undefined) list.push(['oauth', '/**'])
  if (identity.local) list.push(['auth', '/**'], ['users', '/me'], ['token', ''], ['api_keys', '/**'])
  const own = list.flatMap(([key, below]): [keyof PathSettings, string][] =>
    paths[key] === false ? [] : [[key, `${paths[key]}${below}`]]
  )
  for (const prefix of paths.documentation || []) {
    const base = prefix.replace(/\/$/, '')
    own.push(['documentation', `${base}/docs/**`], ['documentation', `${base}/redoc/**`])
    own.push(['documentation', `${base}/openapi.json`])
  }
  return own
}
