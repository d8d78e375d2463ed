import type { Clock } from '../../src/runtime/clock.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import { Deadlines } from '../../src/upstream/deadline.ts'
import type { Surroundings } from '../../src/upstream/service.ts'
import { captureLog } from './gateway.ts'
import { seeded } from './random.ts'

/** What a service needs of its process, with chance that comes out the same every time. */
export function surroundings(clock: Clock): Surroundings {
  return {
    clock,
    deadlines: new Deadlines(clock),
    random: seeded(1),
    log: captureLog().log.logger,
    pseudonym: '1.1 test',
    node: 'test',
    store: new MemoryStore(clock)
  }
}
