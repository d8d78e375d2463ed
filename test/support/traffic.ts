import type { Test } from 'tap'
import type { Database } from '../../src/database/database.ts'
import type { Recorder } from '../../src/traffic/recorder.ts'
import { ownStorage } from './database.ts'
import { temporaryFolder } from './folder.ts'
import { type GatewayOptions, startGateway, type TestGateway } from './gateway.ts'
import { until } from './until.ts'

export interface RecordingGateway extends TestGateway {
  readonly database: Database
  readonly recorder: Recorder
  /** Waits until so many requests have been counted in all, and everything is written down. */
  counted(requests: number): Promise<void>
}

/** A gateway over a database of the test's own, or the one that `storage` names. */
export async function startRecording(
  t: Test,
  kind: Database['kind'],
  document: object,
  options: GatewayOptions & { storage?: Awaited<ReturnType<typeof ownStorage>> } = {}
): Promise<RecordingGateway> {
  const { storage = await ownStorage(t, kind, temporaryFolder(t)), ...others } = options
  const started = await startGateway(t, { storage, ...document }, { ...others, dataDir: storage.data_dir })
  const { recorder, database } = started.gateway.runtime as { recorder: Recorder; database: Database }
  const counted = (requests: number): Promise<void> =>
    until(async () => {
      await recorder.flush()
      const { sum } = await database.db
        .selectFrom('traffic_minutes')
        .select(({ fn }) => fn.sum<number>('requests').as('sum'))
        .executeTakeFirstOrThrow()
      return Number(sum ?? 0) === requests
    }, `${requests} requests are counted`)
  return { ...started, database, recorder, counted }
}
