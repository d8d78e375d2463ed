import type { Worker } from 'node:cluster'
import { EventEmitter } from 'node:events'
import t from 'tap'
import { closeUntaken } from '../../../src/cluster/handed-over.ts'

t.test('CLU-06 a connection that a worker has not taken when it ends is closed; what it has taken is its own', t => {
  const sent: unknown[][] = []
  const child = Object.assign(new EventEmitter(), { send: (...args: unknown[]) => sent.push(args) > 0 })
  const worker = Object.assign(new EventEmitter(), { process: child })
  closeUntaken(worker as unknown as Worker)
  const closed: string[] = []
  const connection = (name: string) => ({ close: () => closed.push(name) })
  const [taken, lost, late] = [connection('taken'), connection('lost'), connection('late')]
  child.send({ act: 'newconn', seq: 1 }, taken)
  child.send({ act: 'newconn', seq: 2 }, lost)
  child.send({ act: 'newconn', seq: 3 }, late)
  child.send({ kind: 'ask' })
  t.equal(sent.length, 4, 'all of it is sent')
  t.same(sent[1], [{ act: 'newconn', seq: 2 }, lost])
  child.emit('internalMessage', { ack: 1 })
  child.emit('internalMessage', { act: 'listening' })
  t.same(closed, [])
  worker.emit('exit', null, 'SIGKILL')
  t.same(closed, ['lost', 'late'])
  t.end()
})
