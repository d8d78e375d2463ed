import t, { type Test } from 'tap'
import {
  type Adapter,
  DiscoveryError,
  type DiscoveryTerms,
  type InstanceList,
  Watch
} from '../../../src/discovery/discovery.ts'
import type { DiscoveryConfig } from '../../../src/discovery/settings.ts'
import type { Pause } from '../../../src/runtime/pause.ts'
import { discoveryConfig, discoveryTerms } from '../../support/discovery.ts'

/** Waits that end when the test says so. */
class Pauses {
  readonly waiting: { ms: number; end(): void; signal: AbortSignal }[] = []
  readonly pause: Pause = (ms, signal) =>
    new Promise((resolve, reject) => {
      const entry = { ms, end: resolve, signal }
      this.waiting.push(entry)
      signal.addEventListener('abort', () => {
        this.waiting.splice(this.waiting.indexOf(entry), 1)
        reject(signal.reason)
      })
    })

  /** Lets the only wait end, and what follows from it happen. @returns how long it was */
  async end(): Promise<number | undefined> {
    const next = this.waiting.shift()
    next?.end()
    await settled()
    return next?.ms
  }
}

const settled = () => new Promise(resolve => setImmediate(resolve))

/** An adapter that says and does what the test wants. */
class Scripted implements Adapter {
  calls = 0
  closed = 0
  tell: (list: InstanceList) => void = () => {}
  fail: (error: unknown) => void = () => {}

  follow(tell: (list: InstanceList) => void, signal: AbortSignal): Promise<void> {
    this.calls++
    this.tell = tell
    return new Promise((_, reject) => {
      this.fail = reject
      signal.addEventListener('abort', () => reject(signal.reason))
    })
  }

  close(): void {
    this.closed++
  }
}

async function scripted(
  t: Test,
  more: Partial<DiscoveryConfig> = {},
  known: InstanceList = [],
  chance = 1,
  log?: DiscoveryTerms['log']
) {
  const adapter = new Scripted()
  const pauses = new Pauses()
  const terms = discoveryTerms({ pause: pauses.pause, random: () => chance, ...(log && { log }) })
  const source = { kind: 'dns', url: 'http://a.test', servers: [] } as const
  const watch = new Watch('orders', discoveryConfig(source, more), terms, known, async () => adapter)
  const told: string[][] = []
  watch.onInstances = list => told.push(list.map(({ id }) => id))
  t.teardown(() => watch.stop())
  watch.start()
  await settled()
  return { adapter, pauses, watch, told }
}

const at = (...ids: string[]): InstanceList => ids.map(id => ({ id, url: `http://10.0.0.1:80/${id}`, weight: 1 }))

t.test(
  'REG-22 who does not answer is asked again and again, twice as rarely each time, but twice a minute',
  async t => {
    const { adapter, pauses } = await scripted(t)
    const waits: (number | undefined)[] = []
    for (let i = 0; i < 9; i++) {
      adapter.fail(Object.assign(new Error('no'), { code: 'ECONNREFUSED' }))
      await settled()
      waits.push(await pauses.end())
    }
    t.strictSame(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000])
    adapter.tell(at('a'))
    adapter.fail(new Error('again'))
    await settled()
    t.equal(await pauses.end(), 500, 'an answer makes up for all of it')
    t.equal(adapter.calls, 11)
  }
)

t.test('REG-22 half of a pause is chance', async t => {
  const { adapter, pauses } = await scripted(t, {}, [], 0)
  adapter.fail(new Error('no'))
  await settled()
  t.equal(await pauses.end(), 250)
})

t.test('H-124 that there are none is believed when it has been so for long enough', async t => {
  const { adapter, pauses, watch, told } = await scripted(t, { emptyAfterMs: 60_000 })
  adapter.tell(at('a'))
  adapter.tell([])
  adapter.tell([])
  t.strictSame([told, pauses.waiting.map(({ ms }) => ms)], [[['a']], [60_000]])
  t.match(watch.state(), { instances: 1, stale: true })
  await pauses.end()
  t.strictSame(told, [['a'], []])
  t.match(watch.state(), { instances: 0, stale: false })
  adapter.tell([])
  t.equal(pauses.waiting.length, 0, 'there is nothing left to doubt')
})

t.test('H-124 a list in between, or no answer, ends the doubt', async t => {
  const { adapter, pauses, watch, told } = await scripted(t, { emptyAfterMs: 60_000 })
  adapter.tell(at('a'))
  adapter.tell([])
  adapter.tell(at('a'))
  await settled()
  t.strictSame([pauses.waiting.length, watch.stale], [0, false])
  adapter.tell([])
  adapter.fail(new DiscoveryError('HTTP_500', 'no'))
  await settled()
  t.strictSame(
    pauses.waiting.map(({ ms }) => ms),
    [500],
    'the pause before it is asked again, and no other'
  )
  t.strictSame(told, [['a']])
  t.match(watch.state(), { status: 'down', error: 'HTTP_500', stale: true, instances: 1 })
})

t.test('H-124 with no time for doubt, none are none', async t => {
  const { adapter, told } = await scripted(t, { emptyAfterMs: 0 })
  adapter.tell(at('a'))
  adapter.tell([])
  t.strictSame(told, [['a'], []])
})

t.test('REG-22 a first list without instances is one', async t => {
  const { adapter, watch } = await scripted(t)
  adapter.tell([])
  await watch.ready
  t.match(watch.state(), { stale: false, instances: 0 })
})

t.test('REG-14 lists are in order, each id once, and told when they are other than before', async t => {
  const { adapter, told } = await scripted(t)
  adapter.tell(at('b', 'a', 'b', 'c'))
  adapter.tell(at('c', 'b', 'a'))
  adapter.tell(at('c', 'b'))
  t.strictSame(told, [
    ['a', 'b', 'c'],
    ['b', 'c']
  ])
})

t.test('H-103 addresses outside of the networks are left out, whoever names them', async t => {
  const { adapter, told } = await scripted(t, { networks: ['private'] })
  adapter.tell([
    { id: 'a', url: 'http://10.0.0.1', weight: 1 },
    { id: 'b', url: 'http://127.0.0.1', weight: 1 },
    { id: 'c', url: 'http://[::ffff:169.254.169.254]', weight: 1 },
    { id: 'd', url: 'http://name.example', weight: 1, address: '127.0.0.1' },
    { id: 'e', url: 'http://name.example', weight: 1, address: '10.0.0.5' },
    { id: 'f', url: 'http://name.example', weight: 1 }
  ])
  t.strictSame(told, [['a', 'e', 'f']], 'what a name stands for is looked at when a connection is made')
})

t.test('REG-22 what was known before is served until there is a list', async t => {
  const { adapter, watch, told } = await scripted(t, {}, at('old'))
  t.match(watch.state(), { instances: 1, stale: true, since: null })
  adapter.tell([])
  t.strictSame(told, [], 'and is not given up at a first empty one')
  adapter.tell(at('new'))
  t.strictSame(told, [['new']])
})

t.test('a watch that was stopped tells nothing, asks nothing and lets go', async t => {
  const { adapter, pauses, watch, told } = await scripted(t)
  adapter.tell(at('a'))
  adapter.tell([])
  watch.stop()
  adapter.tell(at('b'))
  await settled()
  t.strictSame([told, adapter.calls, adapter.closed, pauses.waiting.length], [[['a']], 1, 1, 0])
})

t.test(
  'REG-22 C-29 the log says a failure in words, an address that is not allowed once, and only a bug with its stack',
  async t => {
    const lines: [fields: Record<string, unknown>, message: string][] = []
    const warn = (fields: Record<string, unknown>, message: string) => void lines.push([fields, message])
    const { adapter, pauses } = await scripted(t, { networks: ['10.0.0.0/8'] }, [], 1, {
      warn,
      info() {},
      debug() {}
    } as unknown as DiscoveryTerms['log'])
    const list: InstanceList = [...at('a'), { id: 'b', url: 'http://192.0.2.1', weight: 1 }]
    for (let i = 0; i < 3; i++) adapter.tell(list)
    t.match(lines.splice(0), [[{ service: 'orders', instance: 'b' }, 'leads to 192.0.2.1, which is not allowed']])
    adapter.tell(at('a'))
    adapter.tell(list)
    t.equal(lines.splice(0).length, 1, 'it has come back')
    adapter.fail(new DiscoveryError('HTTP_500', 'answers 500'))
    await settled()
    t.strictSame(lines.splice(0), [
      [
        { service: 'orders', error: 'HTTP_500', reason: 'answers 500', instances: 1 },
        'discovery does not answer; what is known stays'
      ]
    ])
    await pauses.end()
    const bug = new TypeError('x is not a function')
    adapter.fail(bug)
    await settled()
    t.match(lines, [[{ err: bug }, 'discovery does not answer; what is known stays']])
  }
)
