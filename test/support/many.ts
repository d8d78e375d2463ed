import http from 'node:http'
import { type Answer, type CallOptions, call } from './gateway.ts'

/** Connections over which {@link many} asks. */
const CONNECTIONS = 10

/** Asks for the same so many times, a few at a time over connections that stay open. */
export async function many(port: number, count: number, path: string, options: CallOptions = {}): Promise<Answer[]> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS })
  try {
    return await Promise.all(Array.from({ length: count }, () => call(port, path, { agent, ...options })))
  } finally {
    agent.destroy()
  }
}

/** How many answers there are of each status. */
export function tally(answers: readonly Pick<Answer, 'status'>[]): Record<number, number> {
  const counts: Record<number, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}
