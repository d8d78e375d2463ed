import { type FSWatcher, lstatSync, readlinkSync, statSync, watch } from 'node:fs'
import { dirname, join, parse, resolve, sep } from 'node:path'

/** Changes come in bursts: an editor writes, renames and touches. So long does it have to be quiet, in milliseconds. */
const QUIET_MS = 200
/** Links that lead to links, after which nobody follows any more. */
const MAX_LINKS = 40

/** Files and folders, each with what it looked like when it was read ({@link printOf}). */
export type Seen = Map<string, string>

/** What a file or folder looks like from outside, links followed: enough to see a change, cheap enough to ask at every event. */
export function printOf(path: string): string {
  try {
    const { mtimeMs, size, ino } = statSync(path)
    return `${mtimeMs}:${size}:${ino}`
  } catch {
    return 'gone'
  }
}

/** `paths`, each with what it looks like now. */
export function seenNow(paths: readonly string[]): Seen {
  return new Map(paths.map(path => [path, printOf(path)]))
}

/**
 * Calls `changed` once something in `seen` looks otherwise than it did when it was read, be it before this call or after.
 * Watches folders, not files: a watched file is lost when it is replaced by another, as editors do; and the folders of links,
 * since Kubernetes and deployments swap those. Returns a function that stops it.
 */
export function watchFiles(seen: ReadonlyMap<string, string>, changed: () => void): () => void {
  const paths = [...seen.keys()]
  let known = [...seen.values()].join(' ')
  let timer: NodeJS.Timeout | undefined
  let watchers: FSWatcher[] = []

  // Events of other files in the same folders do not count, however many: quiet is when these here stay as they are.
  const look = (): void => {
    const now = paths.map(printOf).join(' ')
    if (now === known) return
    known = now
    clearTimeout(timer)
    timer = setTimeout(() => {
      follow()
      changed()
    }, QUIET_MS)
  }
  const follow = (): void => {
    for (const watcher of watchers) watcher.close()
    watchers = [...new Set(paths.flatMap(foldersOf))].flatMap(folder => watchFolder(folder, look))
  }

  follow()
  look()
  return () => {
    clearTimeout(timer)
    for (const watcher of watchers) watcher.close()
  }
}

function watchFolder(folder: string, look: () => void): FSWatcher[] {
  try {
    const watcher = watch(folder, { persistent: false }, look)
    watcher.on('error', () => watcher.close())
    return [watcher]
  } catch {
    // A folder that is gone cannot change; the one that it was in can.
    return []
  }
}

/** The folders in which a change can change what `path` leads to: its own, itself if it is one, and those of links on the way. */
function foldersOf(path: string): string[] {
  const folders = [path, dirname(path)]
  let rest = path
  for (let i = 0; i < MAX_LINKS; i++) {
    const link = firstLink(rest)
    if (link === undefined) return folders
    rest = join(resolve(dirname(link), readlinkSync(link)), rest.slice(link.length))
    folders.push(dirname(link), dirname(rest))
  }
  return folders
}

/** The first part of `path` that is a link. */
function firstLink(path: string): string | undefined {
  let at = parse(path).root
  for (const name of path.slice(at.length).split(sep)) {
    at = join(at, name)
    try {
      if (lstatSync(at).isSymbolicLink()) return at
    } catch {
      return undefined
    }
  }
  return undefined
}
