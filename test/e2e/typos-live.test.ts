import { writeFileSync } from 'node:fs'
import http from 'node:http'
import { dirname, join } from 'node:path'
import t from 'tap'
import { call, startGateway, type TestGateway } from '../support/gateway.ts'
import { GOOD, GREETING, TYPOS, withTypo } from '../support/typos.ts'
import { startUpstream } from '../support/upstream.ts'

/** Calls that follow one another until told to stop, each other one over a connection of its own. */
function traffic({ port }: TestGateway): () => Promise<{ calls: number; failures: string[] }> {
  const agent = new http.Agent({ keepAlive: true })
  const failures: string[] = []
  let calls = 0
  let over = false
  const client = async (): Promise<void> => {
    while (!over) {
      const { status, headers, json } = await call(port, '/open/traffic', { agent: calls++ % 2 === 0 && agent })
      if (status !== 200 || headers['x-greeting'] !== 'hello' || json.url !== '/hello/traffic')
        failures.push(`${status} ${headers['x-greeting']} ${json.url}`)
    }
  }
  const clients = Promise.all([client(), client(), client()])
  return async () => {
    over = true
    await clients
    agent.destroy()
    return { calls, failures }
  }
}

t.test(
  'CFG-06 CFG-08 H-120 each slip as a live reload: refused with its place, and the one before serves on',
  async t => {
    const { url } = await startUpstream(t)
    const env = { ORDERS_URL: url, TYPO_SECRET: 'a secret of the tests, long enough to be one' }
    const tested = await startGateway(t, {}, { env })
    const { gateway, file, configure, lines } = tested
    writeFileSync(join(dirname(file), 'greeting.ts'), GREETING)
    configure(GOOD)
    await gateway.reload()
    const { version } = gateway.status()
    const stop = traffic(tested)

    for (const typo of TYPOS) {
      configure(withTypo(typo))
      await t.rejects(gateway.reload(), { name: 'ConfigError' }, typo.name)
      // Nothing of a reload waits for the network: without this the others would have no turn.
      t.equal((await tested.call('/open/now')).status, 200)
      t.match(gateway.status(), { version, error: /^\d+ problems?$/ })
      const refusal = lines().findLast(({ msg }) => String(msg).startsWith('configuration refused; still serving'))
      const told = (refusal?.problems as string[] | undefined) ?? []
      t.ok(
        told.some(
          line => line.includes(`gateway.yaml:${typo.at}  `) && line.includes(typo.key) && typo.message.test(line)
        ),
        `${typo.name}: ${told.join('\n')}`
      )
    }

    configure(GOOD)
    t.same(await gateway.reload(), { version, changed: false })
    t.equal(gateway.status().error, undefined)
    const { calls, failures } = await stop()
    t.same(failures, [])
    t.ok(calls > TYPOS.length, `${calls} calls meanwhile`)
  }
)
