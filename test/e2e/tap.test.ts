import { join } from 'node:path'
import t, { type Test } from 'tap'
import { AnswerCopy, type KeptAnswer, tapInto } from '../../src/proxy/tap.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { startGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'
import { startUpstream } from '../support/upstream.ts'

const MOST = 1000
const TAP = join(import.meta.dirname, '..', '..', 'src', 'proxy', 'tap.ts')

/** A gateway on which a plugin taps every answer, twice; `kept` gets what it has seen. */
async function tapped(t: Test, url: string, more: object = {}) {
  const kept: (KeptAnswer | undefined)[] = []
  const name = `kept-${t.name}`
  ;(globalThis as Record<string, unknown>)[name] = kept
  const plugin = `import { definePolicy, Type } from 'sallyport'
    import { AnswerCopy, tapInto } from ${JSON.stringify(TAP)}
    export default definePolicy({ name: 'tapping', schema: Type.Object({}), compile: () => ({
      onRequest({ exchange }, _reply, done) {
        for (const _ of [1, 2])
          tapInto(exchange, new AnswerCopy(${MOST}, answer => globalThis[${JSON.stringify(name)}].push(answer)))
        done()
      }
    }) })`
  const gateway = await startGateway(
    t,
    {
      defaults: { authentication: 'none', ...more },
      plugins: [{ use: './tapping.ts' }],
      services: { s: { url } },
      routes: [{ path: '/**', service: 's', plugins: { tapping: {} } }]
    },
    { files: { 'tapping.ts': plugin } }
  )
  return { ...gateway, kept }
}

const words = ({ status, fields, body }: KeptAnswer) => ({
  status,
  fields: fields.map(String),
  body: body.toString()
})

t.test('an answer that passes by is seen as the service has sent it, by as many as want to', async t => {
  const upstream = await startUpstream(t, (_request, response) => {
    response.setHeader('X-Own', 'yes')
    response.write('in two ')
    setImmediate(() => response.end('pieces'))
  })
  const { call, kept } = await tapped(t, upstream.url)
  t.match(await call('/x'), { status: 200, text: 'in two pieces' })
  t.equal(kept.length, 2)
  for (const answer of kept) {
    const seen = words(answer as KeptAnswer)
    t.match(seen, { status: 200, body: 'in two pieces' })
    t.equal(seen.fields[seen.fields.indexOf('X-Own') + 1], 'yes')
    t.notOk(seen.fields.includes('x-request-id'), 'nothing of the gateway’s own')
  }
})

t.test('a try that is made again is not seen, and an answer of the gateway’s own is none', async t => {
  let calls = 0
  const upstream = await startUpstream(t, (_request, response) => {
    response.statusCode = calls++ === 0 ? 503 : 200
    response.end(`call ${calls}`)
  })
  const { call, kept } = await tapped(t, upstream.url, { retry: { attempts: 1, backoff: 0, retry_on: [503] } })
  t.equal((await call('/x')).text, 'call 2')
  t.same(
    kept.splice(0).map(answer => words(answer as KeptAnswer).body),
    ['call 2', 'call 2']
  )

  await upstream.crash()
  t.equal((await call('/x')).status, 502)
  t.same(kept, [undefined, undefined])
})

t.test('an answer that is cut, or too large to keep, passes by and is not kept', async t => {
  const upstream = await startUpstream(t, (request, response) =>
    response.end('x'.repeat(Number(request.url?.slice(1))))
  )
  const proxy = await startFaultProxy(t, upstream.port)
  const { call, kept } = await tapped(t, proxy.url)
  t.equal((await call('/100')).text.length, 100)
  t.match(kept.splice(0), [{ status: 200 }, { status: 200 }])
  t.equal((await call('/1000')).text.length, 1000)
  t.same(kept.splice(0), [undefined, undefined], 'fields count, too')

  await proxy.set({ kind: 'reset-after', bytes: 250 })
  await t.rejects(call('/900'))
  await until(() => kept.length === 2)
  t.same(kept, [undefined, undefined])
})

t.test('a copy keeps bytes of its own, and none of an answer beyond its bound', async t => {
  const kept: (KeptAnswer | undefined)[] = []
  const copy = new AnswerCopy(10, answer => kept.push(answer))
  const carrier = { tap: undefined }
  tapInto(carrier, copy)
  t.equal(carrier.tap, copy, 'one tap stands for itself')
  const chunk = Buffer.from('0123')
  copy.head(200, [Buffer.from('a'), Buffer.from('b')])
  copy.chunk(chunk)
  copy.ended(true)
  chunk.fill('x')
  t.equal(kept[0]?.body.toString(), '0123')

  const large = new AnswerCopy(10, answer => kept.push(answer))
  large.head(200, [])
  for (let i = 0; i < 4; i++) large.chunk(Buffer.from('0123'))
  large.ended(true)
  t.equal(kept[1], undefined)
})
