/**
 * Permissions are opaque words (C-03), compared exactly. In what a caller holds, `*` stands for one segment, and at the end
 * for all that follow; `:` and `.` both separate segments, and are not taken for each other.
 *
 * @example grants('projects.*', 'projects.read') // true
 */
export function grants(held: string, wanted: string): boolean {
  if (held === wanted) return true
  if (!held.includes('*')) return false
  // Separators are kept, at the odd places.
  const have = held.split(/([.:])/)
  const want = wanted.split(/([.:])/)
  for (const [i, part] of have.entries()) {
    if (part === '*' && i === have.length - 1) return i < want.length
    if (i >= want.length || (part !== '*' && part !== want[i])) return false
  }
  return have.length === want.length
}

/** Whether one of `held` grants `wanted`. */
export function isGranted(held: readonly string[], wanted: string): boolean {
  for (const permission of held) if (grants(permission, wanted)) return true
  return false
}
