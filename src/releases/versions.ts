import { compareVersions, versionName } from '../routing/version.ts'

/** What a route says of its versions. */
interface Versioned<V> {
  readonly path?: string | undefined
  readonly version?: string | number | undefined
  readonly versions?: Readonly<Record<string, V>> | undefined
}

/** A segment of a path that says a version. */
export interface VersionSegment {
  /** The segments before it. */
  readonly at: number
  /** As it is written there: `v2`. */
  readonly text: string
}

/** One of the ways in which requests come to a route with versions. */
export interface VersionForm<V> {
  /** As the configuration writes it. */
  readonly name: string
  /** What `versions` says of it in particular. */
  readonly own: V | undefined
  /** The path to match; undefined for a route by regular expression. */
  readonly path: string | undefined
  /** The version that requests have to want; undefined where the path says it. */
  readonly asked: string | undefined
  /** The segment that the path has, or would have if it said the version; undefined when there is no place for it. */
  readonly segment: VersionSegment | undefined
}

/**
 * The ways in which requests come to a route with versions. `{version}` in its path stands for the version's name; where
 * requests may also say in their fields or their query what they want (`asking`), they come without that segment.
 */
export function versionForms<V>({ path, version, versions }: Versioned<V>, asking: boolean): VersionForm<V>[] {
  const names: [string, V | undefined][] =
    versions === undefined ? [[String(version), undefined]] : Object.entries(versions)
  const segments = path?.split('/').slice(1) ?? []
  const at = segments.findIndex(segment => segment === '{version}' || segment === ':version')
  return names.flatMap(([name, own]): VersionForm<V>[] => {
    const asked = versionName(name)
    if (at === -1) return [{ name, own, path, asked, segment: undefined }]
    const segment = { at, text: name }
    const inPath = { name, own, path: `/${segments.with(at, name).join('/')}`, asked: undefined, segment }
    if (!asking) return [inPath]
    return [inPath, { name, own, path: `/${segments.toSpliced(at, 1).join('/')}`, asked, segment }]
  })
}

/** The lowest version above `name` for which `isGood`; undefined if there is none. */
export function successorOf<V>(
  versions: Readonly<Record<string, V>>,
  name: string,
  isGood: (version: V) => boolean
): string | undefined {
  return Object.entries(versions)
    .filter(([other, version]) => compareVersions(versionName(other), versionName(name)) > 0 && isGood(version))
    .map(([other]) => other)
    .sort((a, b) => compareVersions(versionName(a), versionName(b)))[0]
}

/** `path` with a segment put in before the one at `at`. */
export function withSegment(path: string, { at, text }: VersionSegment): string {
  let start = 0
  for (let i = 0; i < at && start !== -1; i++) start = path.indexOf('/', start + 1)
  if (start === -1) return `${path}/${text}`
  return path === '/' ? `/${text}` : `${path.slice(0, start)}/${text}${path.slice(start)}`
}

/** The version of an API that `version` means, as it stands in a path: `v2` for `2` and `v2`; undefined for software's `1.0.0`. */
export function apiVersion(version: string | undefined): string | undefined {
  const [, number] = /^v?(\d+)$/i.exec(version ?? '') ?? []
  return number === undefined ? undefined : `v${number}`
}
