import t from 'tap'
import { startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'

t.test('C-39 MON-07 metrics are for administrators, and for addresses that may', async t => {
  const { call } = await startGateway(t, { metrics: { allow: [] } })
  for (const path of [
    '/metrics',
    '/api/v1/metrics',
    '/api/v1/metrics/json',
    '/api/v1/metrics/system',
    '/api/v1/metrics/requests'
  ]) {
    t.equal((await call(path)).status, 401)
    t.equal((await call(path, { token: token({ roles: ['user'] }) })).status, 403)
    t.equal((await call(path, { token: token({ roles: ['admin'] }) })).status, 200)
  }
})

t.test('MON-09 MON-10 MON-11 OBS-11 the same as JSON: all metrics, the system, the requests', async t => {
  const { call } = await startGateway(t, {})
  await call('/health')
  const all = (await call('/api/v1/metrics/json')).json
  t.ok(all.some(({ name }: { name: string }) => name === 'http_request_count'))
  t.match((await call('/api/v1/metrics/system')).json, {
    cpu: { cores: Number, process_seconds: Number },
    memory: { total_bytes: Number, process_rss_bytes: Number },
    disk: { total_bytes: Number, free_bytes: Number },
    uptime_seconds: Number
  })
  const requests = (await call('/api/v1/metrics/requests')).json
  t.match(requests, { count: 3, duration_seconds: Number, active: 1, status_codes: { 200: 3 } })
})

t.test('MON-07 the text is of the type that Prometheus asks for, every line well formed', async t => {
  const { call } = await startGateway(t, {})
  const answer = await call('/metrics')
  t.match(answer.headers['content-type'], /^text\/plain; version=0\.0\.4/)
  for (const line of answer.text.split('\n'))
    t.match(line, /^$|^# (HELP|TYPE) \S+ .+$|^[a-zA-Z_:][\w:]*(\{.*\})? (-?\d[\d.eE+-]*|NaN|Nan|[+-]Inf)$/)
})

t.test('OBS-11 processor, memory, disk, descriptors and the event loop are among them', async t => {
  const { call } = await startGateway(t, {})
  const { text } = await call('/metrics')
  for (const name of [
    'process_cpu_seconds_total',
    'process_resident_memory_bytes',
    'gateway_memory_used_ratio',
    'gateway_disk_free_bytes',
    'gateway_disk_total_bytes',
    'process_open_fds',
    'process_max_fds',
    'gateway_descriptors_used_ratio',
    'nodejs_eventloop_lag_p99_seconds'
  ]) {
    const [, value] = new RegExp(`^${name} (\\S+)$`, 'm').exec(text) ?? []
    t.ok(Number(value) > 0, `${name} ${value}`)
  }
  t.match(text, /^gateway_event_loop_delay_seconds \S+$/m)
})
