import t from 'tap'
import { call as callAt, type TestGateway } from '../support/gateway.ts'
import { startProcess, writeConfiguration } from '../support/gateway-process.ts'
import { open, register } from '../support/services.ts'
import { startUpstream } from '../support/upstream.ts'

t.test('STO-01 REG-23 what has been answered survives kill -9', async t => {
  const upstream = await startUpstream(t)
  const { file } = writeConfiguration(t, { storage: { database: true }, registry: { allow: ['loopback'] } })
  const names: string[] = []
  for (let round = 0; round < 2; round++) {
    const process = await startProcess(t, file)
    const call: TestGateway['call'] = (path, options) => callAt(process.port, path, options)
    for (const name of names) t.equal((await call(`/api/v1/${name}`)).status, 200)
    const answers = await Promise.all(
      [0, 1, 2]
        .map(async i => {
          const { status } = await register(call, open(`r${round}-${i}`, upstream.url))
          if (i === 1) process.child.kill('SIGKILL')
          return status
        })
        .map(answer => answer.catch(() => 0))
    )
    for (const [i, status] of answers.entries()) if (status === 201) names.push(`r${round}-${i}`)
    t.equal(answers[1], 201)
    await process.ended
  }
  const last = await startProcess(t, file)
  for (const name of names) t.equal((await callAt(last.port, `/api/v1/${name}`)).status, 200)
})
