/** Where something stands in a configuration file. Lines and columns count from 1. */
export interface Position {
  readonly file: string
  readonly line: number
  readonly column: number
}

interface Place {
  /** Of the key, or of the item in a list. */
  readonly key: Position
  readonly value: Position
  /** How the user spelled the key, where an alias has changed it; '' when he did not write it at all. */
  readonly spelled?: string | undefined
  /** The environment variables that were put into the value. */
  readonly env?: readonly string[] | undefined
}

/**
 * Places are kept beside the data, by container and key, so that they survive merging, aliases and normalising: whoever
 * moves a value moves its place, and nobody else has to know.
 */
const places = new WeakMap<object, Map<string, Place>>()

export function setPlace(container: object, key: string | number, place: Place): void {
  let map = places.get(container)
  if (map === undefined) {
    map = new Map()
    places.set(container, map)
  }
  map.set(String(key), place)
}

export function placeOf(container: unknown, key: string | number): Place | undefined {
  return typeof container === 'object' && container !== null ? places.get(container)?.get(String(key)) : undefined
}

/** Moves a value to another key, or another container, and its place with it. */
export function move(from: Record<string, unknown>, key: string, to: Record<string, unknown>, newKey: string): void {
  const place = placeOf(from, key)
  to[newKey] = from[key]
  delete from[key]
  if (place !== undefined) setPlace(to, newKey, key === newKey ? place : { ...place, spelled: place.spelled ?? key })
}

/** Copies the place of one value to another, made from it. */
export function copyPlace(from: unknown, key: string | number, to: object, newKey: string | number): void {
  const place = placeOf(from, key)
  if (place !== undefined) setPlace(to, newKey, place)
}

/** Gives everything in `data` the same place. */
export function setPlaces(data: unknown, position: Position): void {
  if (typeof data !== 'object' || data === null) return
  for (const [key, value] of Object.entries(data)) {
    setPlace(data, key, { key: position, value: position })
    setPlaces(value, position)
  }
}

/** A copy of a mapping, places included; an empty one of anything else. */
export function copyOf(mapping: unknown): Record<string, unknown> {
  const copy: Record<string, unknown> = {}
  if (typeof mapping !== 'object' || mapping === null || Array.isArray(mapping)) return copy
  for (const [key, value] of Object.entries(mapping)) {
    copy[key] = value
    copyPlace(mapping, key, copy, key)
  }
  return copy
}

/** A place in the data, by the keys that lead to it from the root. */
export type Path = readonly (string | number)[]

/** The nearest place known on the way to `path`, and the path as the user spelled it. */
export function locate(root: unknown, path: Path): { place: Place | undefined; spelled: string } {
  let container: unknown = root
  let place: Place | undefined
  let spelled = ''
  for (const key of path) {
    const here = placeOf(container, key)
    place = here ?? place
    const word = here?.spelled ?? key
    spelled += typeof word === 'number' ? `[${word}]` : `${spelled === '' || word === '' ? '' : '.'}${word}`
    container =
      typeof container === 'object' && container !== null
        ? (container as Record<string | number, unknown>)[key]
        : undefined
  }
  return { place, spelled }
}
