import { EventEmitter } from 'node:events'
import t from 'tap'
import { addSummaries, mergeExpositions, mergeMetrics } from '../../../src/cluster/exposition.ts'
import { type Message, Siblings } from '../../../src/cluster/siblings.ts'

/** Workers whose messages are passed on as their supervisor would. */
function workers(count: number): { siblings: Siblings[]; channels: EventEmitter[] } {
  const channels = Array.from({ length: count }, () => new EventEmitter())
  const siblings = channels.map((channel, me) => {
    const send = (message: Message): boolean => {
      if (message.kind === 'answer') channels[message.to]?.emit('message', message)
      if (message.kind !== 'ask') return true
      channel.emit('message', { kind: 'asked', id: message.id, others: count - 1 })
      for (const [i, other] of channels.entries()) if (i !== me) other.emit('message', { ...message, from: me })
      return true
    }
    return new Siblings(Object.assign(channel, { send }) as never)
  })
  return { siblings, channels }
}

t.test('CLU-06 a worker asks all others, and one that fails is no reason not to hear of the rest', async t => {
  const { siblings } = workers(4)
  for (const [i, sibling] of siblings.entries())
    sibling.on('number', (add: number) => {
      if (i === 3) throw new Error('no')
      return i + add
    })
  t.strictSame(new Set(await siblings[0]?.ask('number', 10)), new Set([11, 12, null]))
  t.strictSame(await siblings[0]?.ask('nothing that anybody knows'), [null, null, null])
})

t.test('CLU-06 a worker alone, or one whose supervisor is gone, is answered all the same', async t => {
  t.strictSame(await workers(1).siblings[0]?.ask('number'), [])
  const gone = Object.assign(new EventEmitter(), {
    send: () => {
      throw new Error('channel closed')
    }
  })
  t.doesNotThrow(() => new Siblings(gone as never).ready({}))
})

t.test('CLU-06 OBS-12 metrics of several workers are one page, each family in one piece', async t => {
  const page = (worker: number, more = '') =>
    `# HELP a_total What.\n# TYPE a_total counter\na_total{worker="${worker}"} ${worker}\n\n# HELP b B\n# TYPE b gauge\nb{worker="${worker}"} 1\n${more}`
  t.equal(
    mergeExpositions([page(1), page(2, '\n# HELP c C\n# TYPE c gauge\n')]),
    `# HELP a_total What.
# TYPE a_total counter
a_total{worker="1"} 1
a_total{worker="2"} 2

# HELP b B
# TYPE b gauge
b{worker="1"} 1
b{worker="2"} 1

# HELP c C
# TYPE c gauge
`
  )
  t.strictSame(
    mergeMetrics([
      [{ name: 'a', values: [1] }],
      [
        { name: 'a', values: [2] },
        { name: 'b', values: [] }
      ]
    ]),
    [
      { name: 'a', values: [1, 2] },
      { name: 'b', values: [] }
    ]
  )
  t.strictSame(
    addSummaries(
      { count: 1, duration_seconds: 0.5, active: 0, status_codes: { 200: 1 } },
      { count: 2, duration_seconds: 1, active: 1, status_codes: { 200: 1, 404: 1 } }
    ),
    { count: 3, duration_seconds: 1.5, active: 1, status_codes: { 200: 2, 404: 1 } }
  )
})
