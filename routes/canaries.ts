import type { FastifyPluginAsync } from 'fastify'
import { refuse } from '../src/errors.ts'
import { ACTIONS, type Canary, type CanaryAction } from '../src/releases/canary.ts'
import { oneOf, Type } from '../src/schema.ts'
import { auditOf, fromStore, guardOwnEndpoints } from './guard.ts'
import type { OwnRoutesOptions } from './index.ts'
import { administrators } from './operation.ts'

const ROUTE = Type.String({ description: 'Id of the route.', examples: ['/orders/**'] })
const time = (description: string) =>
  Type.Union([Type.String(), Type.Null()], { description, examples: ['2026-01-31T09:30:00.000Z'] })
const tally = (description: string) =>
  Type.Object(
    {
      calls: Type.Integer({ description: 'How many.', examples: [120] }),
      failures: Type.Integer({ description: 'How many of them failed.', examples: [1] }),
      p95_ms: Type.Union([Type.Number(), Type.Null()], {
        description: 'That 95 of a hundred stayed below.',
        examples: [42]
      })
    },
    { description }
  )
const CANARY = Type.Object({
  route: ROUTE,
  control: Type.String({ description: 'The service that there is.', examples: ['orders'] }),
  canary: Type.String({ description: 'The one that is to replace it.', examples: ['orders-next'] }),
  status: oneOf(['running', 'paused', 'complete', 'promoted', 'aborted'], {
    description: '`complete` after the last step, `promoted` by hand.'
  }),
  weight: Type.Number({ description: 'Requests of a hundred that it gets.', examples: [5] }),
  step: Type.Union([Type.Integer(), Type.Null()], { description: 'Its step, counted from 1.', examples: [1] }),
  steps: Type.Integer({ description: 'How many there are.', examples: [3] }),
  started_at: time('When it began.'),
  until: time('When its step ends.'),
  changed_at: time('When somebody changed it last.'),
  by: Type.String({ description: 'Who: `gateway` for itself.', examples: ['gateway'] }),
  reason: Type.String({ description: 'Why.', examples: ['errors: 12 % beside 1 %'] }),
  recent: Type.Object(
    { control: tally('Calls of the control.'), canary: tally('Calls of the canary.') },
    { description: 'What this gateway has seen lately, which is what it judges by.' }
  )
})
const CHANGE = Type.Object({
  route: ROUTE,
  action: oneOf(ACTIONS, {
    description: '`pause` stays at its step, `promote` gives it all requests, `abort` none, `restart` begins anew.'
  }),
  reason: Type.String({ description: 'Why, for the others.', default: '', maxLength: 1000 })
})

/** Canaries, for those who administer them (RTE-09). */
const canaries: FastifyPluginAsync<OwnRoutesOptions> = async (app, { snapshot, runtime }) => {
  await guardOwnEndpoints(app, { snapshot, runtime })

  app.get(
    '/canaries',
    administrators('Canaries, and how far they are', {
      answers: { 200: Type.Object({ canaries: Type.Array(CANARY, { description: 'By route.' }) }) }
    }),
    async () => ({ canaries: runtime.canaries.all().map(canaryDetails) })
  )

  app.patch<{ Body: { route: string; action: CanaryAction; reason: string } }>(
    '/canaries',
    administrators('Pauses, resumes, promotes, aborts or restarts a canary on all gateways', {
      body: CHANGE,
      answers: { 200: CANARY },
      refuses: ['not_found', 'conflict']
    }),
    async request => {
      const { route, action, reason } = request.body
      const canary = runtime.canaries.all().find(({ release }) => release.route === route)
      if (canary === undefined) throw refuse('not_found', { details: `The route "${route}" has no canary.` })
      const done = await fromStore(runtime.canaries.act(canary, action, reason, auditOf(request, runtime)))
      if (!done) throw refuse('conflict', { details: `It is ${statusOf(canary)}, so there is nothing to ${action}.` })
      return canaryDetails(canary)
    }
  )
}

function statusOf({ record, progress }: Canary): string {
  if (record === undefined || record.outcome !== 'running') return record?.outcome ?? 'running'
  return record.pausedAt !== null ? 'paused' : progress?.step === undefined ? 'complete' : 'running'
}

function canaryDetails(canary: Canary) {
  const { release, record, progress, weight, clock } = canary
  const now = clock.monotonic()
  const shown = ({ calls, failures, p95 }: ReturnType<Canary['control']['tally']>) => ({ calls, failures, p95_ms: p95 })
  return {
    route: release.route,
    control: release.control,
    canary: release.canary,
    status: statusOf(canary),
    weight,
    step: progress?.step === undefined ? null : progress.step + 1,
    steps: release.steps.length,
    started_at: timeOf(record?.startedAt),
    until: timeOf(progress?.until),
    changed_at: timeOf(record?.changedAt),
    by: record?.by ?? 'gateway',
    reason: record?.reason ?? '',
    recent: { control: shown(canary.control.tally(now)), canary: shown(canary.canary.tally(now)) }
  }
}

function timeOf(time: number | undefined): string | null {
  return time === undefined || time === Number.POSITIVE_INFINITY ? null : new Date(time).toISOString()
}

export default canaries
