import type { Test } from 'tap'
import type { Source } from '../../src/discovery/settings.ts'
import { discoveryTerms, placesOf, watchOf } from '../support/discovery.ts'
import { until } from '../support/until.ts'

/** Somebody who knows where instances are, and what the test makes him say. */
export interface SourceUnderTest {
  readonly source: Source
  /** From now on these are the instances of `orders`: `127.0.0.1:8001`, all with one port. */
  set(...places: string[]): Promise<void> | void
  /** Nobody answers any more. */
  stop(): Promise<void>
  /** Somebody does again, and knows what he was told. */
  start(): Promise<void>
}

const [A, B, C] = ['127.0.0.1:8001', '127.0.0.2:8001', '127.0.0.3:8001'] as const

/** What every adapter promises, by its watch. Run once per adapter. */
export function discoveryContract(
  t: Test,
  create: (t: Test) => Promise<SourceUnderTest>,
  options: { skip?: string | false } = {}
): void {
  const start = async (t: Test, ...places: string[]) => {
    const under = await create(t)
    await under.set(...places)
    const terms = discoveryTerms()
    const watched = watchOf(under.source, terms)
    t.teardown(() => watched.watch.stop())
    return { under, terms, ...watched, has: (...wanted: string[]) => until(() => same(watched.last(), wanted)) }
  }

  t.test('REG-14 REG-22 tells all instances at once, and then each change, once', { ...options }, async t => {
    const { under, watch, told, has } = await start(t, A, B)
    watch.start()
    await watch.ready
    t.strictSame(told, [[A, B]])
    t.match(watch.state(), { instances: 2, stale: false, since: /T/ })
    await under.set(A, B, C)
    await has(A, B, C)
    await under.set(C)
    await has(C)
    await under.set(C)
    await under.set(A, C)
    await has(A, C)
    t.strictSame(told.at(-2), [C], 'what has not changed is not told')
    t.equal(watch.updates, told.length)
  })

  t.test('H-124 the last list stays while nobody answers, and the next one is taken', { ...options }, async t => {
    const { under, watch, told, has, error } = await start(t, A, B)
    watch.start()
    await watch.ready
    await under.stop()
    await until(() => error() !== undefined)
    t.match(watch.state(), { status: 'down', instances: 2, stale: true })
    t.match(error(), /^[A-Z0-9_]+$/)
    t.strictSame(told, [[A, B]])
    await under.start()
    await under.set(B, C)
    await has(B, C)
    t.match(watch.state(), { instances: 2, stale: false })
    t.equal(error(), undefined)
  })

  t.test('REG-22 a watch that begins while nobody answers has its list later', { ...options }, async t => {
    const { under, watch, told, has, error } = await start(t, A)
    await under.stop()
    watch.start()
    await until(() => error() !== undefined)
    t.strictSame([told, watch.state().since], [[], null])
    await under.start()
    await under.set(A)
    await has(A)
  })

  t.test('H-124 that there are none at all is not believed at once', { ...options }, async t => {
    const { under, watch, told, has } = await start(t, A, B)
    watch.start()
    await watch.ready
    await under.set()
    await until(() => watch.stale)
    t.strictSame(placesOf(watch.instances), [A, B])
    t.equal(told.length, 1)
    await under.set(B)
    await has(B)
    t.notOk(watch.stale)
  })

  t.test('stops when it is told to, and lets go of its connections', { ...options }, async t => {
    const { under, terms, watch, told } = await start(t, A)
    watch.start()
    await watch.ready
    watch.stop()
    await until(() => terms.leases.keys.length === 0)
    await under.set(A, B)
    await new Promise(resolve => setTimeout(resolve, 50))
    t.strictSame(told, [[A]])
  })
}

function same(list: readonly string[] | undefined, wanted: readonly string[]): boolean {
  return list?.join() === wanted.join()
}
