import t from 'tap'
import { bucketOf, encodeLatencies, LATENCY_BUCKETS, percentiles } from '../../../src/traffic/latency.ts'

const medianOf = (ms: number): number => percentiles([[bucketOf(ms), 1]], [0.5])[0] as number

t.test('OBS-22 a bucket says within a 32nd how long what is in it took', async t => {
  let last = -1
  for (let ms = 0.25; ms < 4_000_000; ms *= 1.003) {
    const bucket = bucketOf(ms)
    t.ok(bucket >= last, `buckets go up at ${ms}`)
    last = bucket
    t.ok(Math.abs(medianOf(ms) - ms) <= ms / 32, `${ms} is taken for ${medianOf(ms)}`)
  }
  for (let ms = 0; ms < 0.25; ms += 0.01) t.ok(Math.abs(medianOf(ms) - ms) <= 0.008, `${ms}`)
})

t.test('OBS-22 whatever a clock says has a bucket', async t => {
  for (const ms of [-1, 0, Number.NaN]) t.equal(bucketOf(ms), 0, `${ms}`)
  for (const ms of [5e6, 1e12, Number.POSITIVE_INFINITY]) t.equal(bucketOf(ms), LATENCY_BUCKETS - 1, `${ms}`)
})

t.test('OBS-22 percentiles of distributions that were added are those of all requests', async t => {
  const counts = new Map<number, number>()
  for (let ms = 1; ms <= 1000; ms++) counts.set(bucketOf(ms), (counts.get(bucketOf(ms)) ?? 0) + 1)
  const found = percentiles([...counts].reverse(), [0.5, 0.95, 0.99])
  for (const [i, wanted] of [500, 950, 990].entries())
    t.ok(Math.abs((found[i] as number) - wanted) <= wanted / 16, `${found[i]} for ${wanted}`)
  t.same(percentiles([], [0.5, 0.99]), [null, null])
})

t.test('OBS-22 only buckets that hold something are written down', async t => {
  const counts = new Uint32Array(LATENCY_BUCKETS)
  t.equal(encodeLatencies(counts), '{}')
  counts[3] = 7
  counts[399] = 1
  t.equal(encodeLatencies(counts), '{"3":7,"399":1}')
})
