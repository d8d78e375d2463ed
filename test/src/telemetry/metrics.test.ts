import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { familiesOf } from '../../../src/metrics-registry.ts'
import { Runtime } from '../../../src/runtime/runtime.ts'
import { BUCKETS, Histogram, LabelledCounter, RequestMetrics } from '../../../src/telemetry/metrics.ts'
import { ROOT } from '../../support/config.ts'
import { captureLog } from '../../support/gateway.ts'

t.test('a histogram counts into the first bucket that is large enough, and shows buckets added up', async t => {
  const histogram = new Histogram()
  for (const seconds of [0.0005, 0.001, 0.002, 1, 100]) histogram.observe(seconds)
  const samples = histogram.samples('x', { a: 'b' })
  const bucket = (le: string) => samples.find(({ labels }) => labels.le === le)?.value
  t.equal(bucket('0.001'), 2)
  t.equal(bucket('0.0025'), 3)
  t.equal(bucket('1'), 4)
  t.equal(bucket(String(BUCKETS.at(-1))), 4)
  t.equal(bucket('+Inf'), 5)
  t.equal(samples.find(({ metricName }) => metricName === 'x_count')?.value, 5)
  t.equal(samples.find(({ metricName }) => metricName === 'x_sum')?.value, 0.0005 + 0.001 + 0.002 + 1 + 100)
})

t.test('H-126 methods that nobody knows share one label', async t => {
  const metrics = new RequestMetrics()
  const endpoint = metrics.endpoint('/a')
  t.equal(endpoint.of('BREW'), endpoint.of('PROPFIND'))
  t.not(endpoint.of('GET'), endpoint.of('POST'))
  t.equal(endpoint.of('GET'), metrics.endpoint('/a').of('GET'))
})

t.test('counters add up by labels', async t => {
  const counter = new LabelledCounter()
  counter.inc({ reason: 'expired' })
  counter.inc({ reason: 'expired' }, 2)
  counter.inc({ reason: 'revoked' })
  t.strictSame(counter.samples(), [
    { labels: { reason: 'expired' }, value: 3 },
    { labels: { reason: 'revoked' }, value: 1 }
  ])
})

const families = () => familiesOf(new Runtime({ log: captureLog().log }))

t.test('every family has a name of its own, help and a type', async t => {
  const all = families()
  t.equal(new Set(all.map(({ name }) => name)).size, all.length)
  for (const family of all) t.match(family, { help: /\w/, type: /^(counter|gauge|histogram)$/ })
})

t.test('C-12 every family is on the page about telemetry, and no other', async t => {
  const page = readFileSync(join(ROOT, 'docs', 'telemetry.md'), 'utf8')
  const rows = [...page.matchAll(/^\| (`[^|]+`) \| [^|]*\| [^|]*\|$/gm)].map(([, names = '']) => names)
  const told = rows.flatMap(names => [...names.matchAll(/`([a-z_]+\*?)`/g)].map(([, name]) => name as string))
  const matches = (name: string, pattern: string): boolean =>
    pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern
  const names = families().map(({ name }) => name)
  t.same(
    names.filter(name => !told.some(pattern => matches(name, pattern))),
    [],
    'not on the page'
  )
  t.same(
    told.filter(pattern => !/^(process|nodejs)_/.test(pattern) && !names.some(name => matches(name, pattern))),
    [],
    'on the page, and nowhere else'
  )
})
