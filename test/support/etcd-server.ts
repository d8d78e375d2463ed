import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Test } from 'tap'
import { findProgram } from './debian.ts'
import { freePort } from './free-port.ts'

export interface EtcdServer {
  readonly url: string
  /** One call of the JSON gateway. */
  ask(method: string, body: object, token?: string): Promise<Record<string, unknown>>
  /** Ends it as a crash would. */
  stop(): Promise<void>
  /** Starts it again, with what it had. */
  start(): Promise<void>
  /** Starts it again, with nothing. */
  startEmpty(): Promise<void>
}

/** Where an etcd is; undefined when there is no way. */
function findEtcd(): string | undefined {
  return process.env.ETCD ?? findProgram('etcd', 'etcd-server')
}

const program = findEtcd()

/** Why the tests that need an etcd are skipped, for tap; false when there is one. */
export const noEtcd = program === undefined && 'no etcd: install etcd-server, or set ETCD'

/** A server of one member with a folder of its own, for as long as the test runs. */
export async function startEtcd(t: Test): Promise<EtcdServer> {
  const folder = t.testdir({})
  const [port, peer] = [await freePort(), await freePort()]
  const url = `http://127.0.0.1:${port}`
  let child: ChildProcess | undefined
  let data = 0
  const ask: EtcdServer['ask'] = async (method, body, token) => {
    const answer = await fetch(`${url}/v3/${method}`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: token === undefined ? {} : { authorization: token }
    })
    return (await answer.json()) as Record<string, unknown>
  }
  const start = async (): Promise<void> => {
    const own = `http://127.0.0.1:${peer}`
    child = spawn(
      program as string,
      [
        ...['--data-dir', `${folder}/${data}`, '--listen-client-urls', url, '--advertise-client-urls', url],
        ...['--listen-peer-urls', own, '--initial-advertise-peer-urls', own, '--initial-cluster', `default=${own}`],
        ...['--initial-cluster-token', `test-${data}`]
      ],
      { stdio: 'ignore' }
    )
    for (let i = 0; i < 400; i++) {
      const answer = await fetch(`${url}/health`).then(
        reply => reply.text(),
        () => ''
      )
      if (answer.includes('true')) return
      await new Promise(resolve => setTimeout(resolve, 25))
    }
    throw new Error(`etcd does not answer at ${url}`)
  }
  const stop = async (): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    child.kill('SIGKILL')
    await exit
  }
  const startEmpty = (): Promise<void> => {
    data++
    return start()
  }
  t.teardown(stop)
  await start()
  return { url, ask, start, stop, startEmpty }
}

export const base64 = (text: string): string => Buffer.from(text).toString('base64')
