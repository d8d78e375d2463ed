import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import t from 'tap'
import { parse, parseAllDocuments } from 'yaml'
import { loadConfiguration } from '../src/gateway.ts'
import { ROOT } from './support/config.ts'

const folder = join(ROOT, 'deploy')
const read = (file: string): string => readFileSync(join(folder, file), 'utf8')
// biome-ignore lint/suspicious/noExplicitAny: manifests of all kinds.
const manifests: any[] = readdirSync(join(folder, 'kubernetes'))
  .filter(name => !['kustomization.yaml', 'gateway.yaml'].includes(name))
  .flatMap(name => parseAllDocuments(read(`kubernetes/${name}`)).map(document => document.toJS()))
const of = (kind: string) => manifests.find(manifest => manifest.kind === kind)

const SECRET = { JWT_SECRET_KEY: 'x'.repeat(64) }

t.test('DEP-03 DEP-04 DEP-05 DEP-06 SEC-07 the manifests fit each other, and what they serve', async t => {
  const { resources, namespace, configMapGenerator } = parse(read('kubernetes/kustomization.yaml'))
  for (const file of resources) t.ok(existsSync(join(folder, 'kubernetes', file)), file)
  t.equal(of('Namespace').metadata.name, namespace)
  const { spec } = of('Deployment')
  const [container] = spec.template.spec.containers
  const env = { REDIS_HOST: 'redis', DATABASE_URL: 'postgres://db/sallyport', GATEWAY_REGION: 'eu', ...SECRET }
  t.strictSame(container.env.map(({ name }: { name: string }) => name).sort(), Object.keys(env).sort())
  const { snapshot } = await loadConfiguration({ files: [join(folder, 'kubernetes/gateway.yaml')], env, overrides: [] })
  const { server, adminListen } = snapshot
  t.match(container.ports, [{ containerPort: server.port }, { containerPort: Number(adminListen?.split(':')[1]) }])
  const graceMs = server.timeouts.shutdown_delay + server.timeouts.drain
  t.ok(spec.template.spec.terminationGracePeriodSeconds * 1000 > graceMs)
  t.match(container.resources, { limits: { cpu: '1000m', memory: '1Gi' }, requests: { cpu: '500m', memory: '512Mi' } })
  t.match(container.readinessProbe.httpGet.path, '/health/ready')
  t.equal(spec.replicas, 3)
  t.match(of('Service').spec, { type: 'ClusterIP', ports: [{ port: 80, targetPort: server.port }] })
  t.match(of('Ingress').spec, { ingressClassName: 'nginx', tls: [{ secretName: 'api-tls-cert' }] })
  for (const kind of ['Service', 'PodDisruptionBudget', 'NetworkPolicy'])
    t.match(JSON.stringify(of(kind).spec), /"app":"api-gateway"/, kind)
  t.equal(of('HorizontalPodAutoscaler').spec.scaleTargetRef.name, of('Deployment').metadata.name)
  const maps: { name: string; files?: string[]; literals?: string[] }[] = configMapGenerator
  const keys = new Map(maps.map(({ name, literals = [] }) => [name, literals.map(literal => literal.split('=')[0])]))
  for (const { valueFrom } of container.env)
    if (valueFrom.configMapKeyRef) {
      const { name, key } = valueFrom.configMapKeyRef
      t.ok(keys.get(name)?.includes(key), `${name}/${key}`)
    }
})

t.test('DEP-02 DEP-07 compose and PM2 start what is there, with a configuration that is good', async t => {
  const compose = parse(read('compose.yaml'))
  t.strictSame(Object.keys(compose.services), ['gateway', 'redis', 'postgres'])
  t.ok(existsSync(join(folder, compose.services.gateway.volumes[0].split(':')[0])))
  const { apps } = createRequire(import.meta.url)(join(folder, 'ecosystem.config.cjs'))
  const [app] = apps
  t.ok(app.script.endsWith(join('dist', 'src', 'main.js')))
  const [, , file] = app.args
  const shared = { DATABASE_URL: 'postgres://db/x', REDIS_URL: 'redis://redis', WORKERS: 'auto', ...SECRET }
  const { snapshot } = await loadConfiguration({ files: [file], env: { ...app.env, ...shared }, overrides: [] })
  t.equal(snapshot.server.workers, 'auto')
  t.ok(app.kill_timeout > snapshot.server.timeouts.drain)
})
