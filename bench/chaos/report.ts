import type { Faults } from './faults.ts'
import type { Sample } from './gateway.ts'
import type { Ledger } from './ledger.ts'
import { DETECTION_MS, type Excuse } from './weather.ts'

/** The bars, of issue 4. */
const AVAILABILITY = 0.999
const MORE_DESCRIPTORS = 10
const MORE_HEAP = { factor: 1.15, mb: 5 }

const EXCUSES: Record<Excuse, string> = {
  'warm-up': 'before anything had gone wrong, to a process that had just started',
  detection: 'within the time of detection',
  nobody: 'no instance was healthy',
  redis: 'with an Idempotency-Key, while Redis was away'
}

interface Course {
  readonly minutes: number
  readonly rate: number
  readonly seed: number
  readonly machine: readonly string[]
  readonly ledger: Ledger
  readonly faults: Faults
  readonly samples: { readonly before: Sample | undefined; readonly after: Sample | undefined }
  readonly peak: {
    readonly descriptors: number
    readonly residentMb: number
    /** Longest that an event loop stood still. */
    readonly gatewayStallMs: number
    readonly ownStallMs: number
  }
  readonly survived: boolean
  readonly complaints: ReadonlyMap<string, number>
}

/** What a run came to, as a page, and whether every promise was kept. */
export function reportOf(course: Course): { text: string; isGood: boolean } {
  const { ledger, faults, samples, peak } = course
  const { before, after } = samples
  const availability = ledger.availability() ?? 0
  const bars: [what: string, is: string, isGood: boolean][] = [
    ['no wrong answer', `${ledger.wrong.length} of ${ledger.total}`, ledger.wrong.length === 0],
    [
      'nothing delivered twice that must not be',
      `${ledger.twice.length} of ${ledger.once} POSTs`,
      ledger.twice.length === 0
    ],
    [
      `availability of healthy routes >= ${percent(AVAILABILITY, 1)}`,
      `${percent(availability, 3)}: ${ledger.failed} of ${ledger.counted} failed`,
      availability >= AVAILABILITY
    ],
    [
      'descriptors flat',
      `${before?.descriptors} before, ${after?.descriptors} after, at most ${peak.descriptors}`,
      (after?.descriptors ?? Number.NaN) <= (before?.descriptors ?? 0) + MORE_DESCRIPTORS
    ],
    [
      'heap flat',
      `${mb(before?.heapMb)} before, ${mb(after?.heapMb)} after; resident ${mb(before?.residentMb)} and ${mb(after?.residentMb)}, at most ${mb(peak.residentMb)}`,
      (after?.heapMb ?? Number.NaN) <= (before?.heapMb ?? 0) * MORE_HEAP.factor + MORE_HEAP.mb
    ],
    ['what the control plane has answered is so', `${faults.broken.length} exceptions`, faults.broken.length === 0],
    ['the gateway is the process that was started', course.survived ? 'yes' : 'no', course.survived]
  ]
  const sorted = ledger.latencies.toSorted((a, b) => a - b)
  const at = (share: number) => (sorted[Math.floor(sorted.length * share)] ?? Number.NaN).toFixed(1)
  const isGood = bars.every(([, , isGood]) => isGood)
  const text = `# A chaos run

${isGood ? 'Every promise was kept.' : 'NOT every promise was kept.'}

- ${course.minutes} minutes at ${course.rate} requests a second, seed ${course.seed}: \`npm run chaos -- --minutes ${course.minutes} --rate ${course.rate} --seed ${course.seed}\`
${course.machine.join('\n')}

| promise | | |
|---|---|---|
${bars.map(([what, is, isGood]) => `| ${what} | ${is} | ${isGood ? 'kept' : '**broken**'} |`).join('\n')}

Three services of three instances each, behind links that let things go wrong; one gateway over PostgreSQL and Redis, with rate limits, health checks, outlier detection, retries, breakers, bulkheads and idempotency keys. The
instances of one service are in the configuration, those of another found over HTTP, those of the third register themselves. Each request carries a nonce, of which its answer is made; what has an
\`Idempotency-Key\` is sent again when it has been answered, and has to be answered alike.

**Availability** counts every request, of any method, to a service of which at least one instance was healthy for as long as the request took, unless it was under way within ${DETECTION_MS / 1000} s after
something had gone wrong with an instance of that service (the time that detection may take). An instance is healthy when nothing is wrong with it: neither killed nor cut off, nor resetting
or slow, nor flapping, nor left out of the configuration, and when that has been so for ${DETECTION_MS / 1000} s. A flapping health check, a change of the configuration, a restart of
Redis or PostgreSQL excuse nothing, but for POSTs with an \`Idempotency-Key\` while Redis is away, which are refused since nobody could promise that they are done once. Success is the right answer, complete; nothing is sent twice by the client.

| service | counted | failed | availability |
|---|--:|--:|--:|
${[...ledger.services].map(([name, { counted, failed }]) => `| ${name} | ${counted} | ${failed} | ${percent(ledger.availability(name) ?? 0, 3)} |`).join('\n')}

Not counted: ${[...ledger.excused].map(([excuse, times]) => `${times} (${EXCUSES[excuse]})`).join(', ') || 'none'}.
Outcomes of all: ${list(ledger.outcomes)}.
GETs that counted took ${at(0.5)} ms (median), ${at(0.99)} ms (p99), from one process that is the clients, the network and the services as well. The longest that its event loop stood still was ${peak.ownStallMs.toFixed(0)} ms, the gateway's ${peak.gatewayStallMs.toFixed(0)} ms.

What happened: ${list(faults.counts)}.
${section(
  'Failures that count',
  [...ledger.failures].sort(([, a], [, b]) => b - a).map(([what, times]) => `${times} x ${what}`)
)}${section('Some of them', ledger.samples)}${section('Wrong answers', ledger.wrong.slice(0, 25))}${section('Delivered more than once', ledger.twice.slice(0, 25))}${section('Control plane', faults.broken.slice(0, 25))}${section(
  'What the gateway complained of',
  [...course.complaints].map(([what, times]) => `${times} x ${what}`)
)}`
  return { text, isGood }
}

function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? '' : `\n## ${title}\n\n${lines.map(line => `- ${line}`).join('\n')}\n`
}

function list(counts: ReadonlyMap<string, number>): string {
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .map(([what, times]) => `${what} ${times}`)
    .join(', ')
}

function percent(share: number, digits: number): string {
  return `${(Math.floor(share * 100 * 10 ** digits) / 10 ** digits).toFixed(digits)} %`
}

function mb(value: number | undefined): string {
  return `${value?.toFixed(0)} MB`
}
