import t from 'tap'
import { call } from '../support/gateway.ts'
import { startProcess, writeConfiguration } from '../support/gateway-process.ts'
import { noRedisServer, ownRedis } from '../support/redis-store.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const boss = token({ sub: 'root', roles: ['admin'] })

t.test(
  'HLB-12 HLB-15 CLU-04 C-29 gateways on one Redis: one checks, all know; it is killed, and Redis is, and checks go on',
  { skip: noRedisServer },
  async t => {
    const redis = await ownRedis(t)
    let status = 200
    const upstream = await startUpstream(t, (_, response) => response.writeHead(status).end())
    const checks = () => upstream.seen.filter(({ url }) => url === '/health').length
    const { file } = writeConfiguration(t, {
      storage: { redis_url: redis.url },
      services: { s: { instances: [{ id: 'a', url: upstream.url }], health_check: { interval_seconds: 0.5 } } },
      routes: [{ path: '/x', service: 's', authentication: 'none' }]
    })
    const nodes = await Promise.all([startProcess(t, file), startProcess(t, file)])
    const checkers = async () => {
      const answers = await Promise.all(nodes.map(({ port }) => call(port, '/gateway/services/s', { token: boss })))
      return answers.map(({ json }) => json.instances[0].checked_by)
    }
    const allSay = (state: string) =>
      until(() =>
        nodes.every(node => node.lines().findLast(line => line.instance === 'a' && line.state)?.state === state)
      )

    await until(async () => {
      // The gateway's own endpoints are limited, too: no more questions than there are checks.
      const seen = checks()
      await until(() => checks() > seen)
      const [first, second] = await checkers()
      return first !== null && first === second
    }, 'one for both')
    status = 503
    await allSay('unhealthy')
    for (const { port } of nodes) t.equal((await call(port, '/x')).status, 503)
    status = 200
    await allSay('healthy')

    // Whether it was the one that checked or not.
    const [gone, left] = nodes as [(typeof nodes)[0], (typeof nodes)[0]]
    gone.child.kill('SIGKILL')
    const killedAt = checks()
    await until(() => checks() >= killedAt + 4)
    await redis.kill()
    const withoutRedis = checks()
    await until(() => checks() >= withoutRedis + 3)
    t.equal((await call(left.port, '/x')).status, 200)
  }
)
