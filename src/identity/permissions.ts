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

/**
 * What both lists grant, and nothing else: of `orders.*` and `orders.read` that is `orders.read`.
 *
 * @example inCommon(['orders.*', 'users.read'], ['*.read', 'users.write']) // ['orders.read', 'users.read']
 */
export function inCommon(some: readonly string[], others: readonly string[]): string[] {
  const found = new Set(some.flatMap(one => others.flatMap(other => narrower(one, other) ?? [])))
  return [...found].filter(one => ![...found].some(other => other !== one && grants(other, one)))
}

/** What two permissions grant both; undefined for nothing. */
function narrower(one: string, other: string): string | undefined {
  if (one === other) return one
  const [a, b] = [one.split(/([.:])/), other.split(/([.:])/)]
  const parts: string[] = []
  for (let i = 0; i < a.length || i < b.length; i++) {
    const [mine, yours] = [a[i], b[i]]
    if (mine === undefined || yours === undefined) return undefined
    // A `*` at the end stands for whatever the other one still asks for.
    if (mine === '*' && i === a.length - 1) return [...parts, ...b.slice(i)].join('')
    if (yours === '*' && i === b.length - 1) return [...parts, ...a.slice(i)].join('')
    if (mine !== yours && mine !== '*' && yours !== '*') return undefined
    parts.push(mine === '*' ? yours : mine)
  }
  return parts.join('')
}
