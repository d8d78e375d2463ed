/**
 * How long requests took, as counts in buckets that grow with what they hold: sixteen to each power of two. So the
 * distribution of any number of requests takes the same room, distributions are added bucket by bucket, and a percentile is
 * off by a 32nd at most (or by 8 us, for what takes less than a quarter of a millisecond).
 */

/** Buckets of one power of two, as a power of two. */
const FINE_BITS = 4
const FINE = 1 << FINE_BITS
/** The unit of the first buckets: a 64th of a millisecond. */
const PER_MS = 64
/** What takes longer than this many units (some 70 minutes) is in the last bucket. */
const MOST = 2 ** 28 - 1

/** Number of buckets. */
export const LATENCY_BUCKETS = bucketOf(Number.POSITIVE_INFINITY) + 1

/** The bucket for a duration in milliseconds. */
export function bucketOf(ms: number): number {
  const units = Math.min(ms * PER_MS, MOST) | 0
  if (units < FINE) return units < 0 ? 0 : units
  const shift = 31 - Math.clz32(units) - FINE_BITS
  return (shift << FINE_BITS) + (units >> shift)
}

/** The middle of a bucket, in milliseconds. */
function middleOf(bucket: number): number {
  const shift = Math.max(0, (bucket >> FINE_BITS) - 1)
  return (((bucket - (shift << FINE_BITS)) << shift) + (1 << shift) / 2) / PER_MS
}

/**
 * The durations that so many of a hundred requests stayed below.
 * @param counts of requests by bucket, in any order
 * @returns milliseconds for each of `shares` (0.5 for the median); null if there were no requests
 */
export function percentiles(counts: Iterable<readonly [bucket: number, count: number]>, shares: readonly number[]) {
  const sorted = [...counts].sort(([a], [b]) => a - b)
  const total = sorted.reduce((sum, [, count]) => sum + count, 0)
  return shares.map(share => {
    let below = 0
    for (const [bucket, count] of sorted) {
      below += count
      if (below >= share * total) return middleOf(bucket)
    }
    return null
  })
}

/** The buckets that hold something, as the database keeps them: `{"37":12}`. */
export function encodeLatencies(counts: Uint32Array): string {
  let text = ''
  for (let bucket = 0; bucket < counts.length; bucket++)
    if (counts[bucket] !== 0) text += `${text === '' ? '' : ','}"${bucket}":${counts[bucket]}`
  return `{${text}}`
}
