import { join } from 'node:path'
import t from 'tap'
import { checkConfiguration } from '../../src/gateway.ts'
import { ROOT } from '../support/config.ts'

t.test('REG-25 the six named services are an example that is good as it stands', async t => {
  const sources = { files: [join(ROOT, 'examples', 'agents.yaml')], env: {}, overrides: [] }
  const { snapshot } = await checkConfiguration(sources)
  t.same(
    snapshot.routes.map(({ label, service, rewrite }) => [label, service, rewrite]),
    [
      ['/api/v1/projects/**', 'project-coordinator'],
      ['/api/v1/agents/**', 'agent-orchestrator'],
      ['/api/v1/tasks/**', 'planning-system'],
      ['/api/v1/models/**', 'model-orchestration'],
      ['/api/v1/tools/**', 'tool-integration'],
      ['/api/v1/workflows/**', 'service-integration']
    ].map(entry => [...entry, { kind: 'strip', segments: 2 }])
  )
  t.same(snapshot.warnings, [])
})
