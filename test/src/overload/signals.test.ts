import { closeSync, existsSync, openSync } from 'node:fs'
import t from 'tap'
import { systemSignals } from '../../../src/overload/signals.ts'

const skip = !existsSync('/proc/self/limits') && 'no /proc: the system does not say'

t.test('H-127 OBS-11 what is used of descriptors is seen', { skip }, async t => {
  const before = systemSignals.descriptors()
  t.ok(before > 0 && before < 1, `${before}`)
  const open = Array.from({ length: 200 }, () => openSync('/dev/null', 'r'))
  const during = systemSignals.descriptors()
  for (const descriptor of open) closeSync(descriptor)
  t.ok(during > before, `${before} before, ${during} with 200 more`)
  t.ok(systemSignals.descriptors() < during)
})

t.test('H-127 OBS-11 what is used of memory is seen, of the heap or of what the process may have', async t => {
  const heap = systemSignals.memory(2 ** 49)
  t.ok(heap > 0 && heap < 1, `${heap}`)
  const limited = systemSignals.memory(process.memoryUsage.rss())
  t.ok(limited > 0.5 && limited < 2, `${limited}`)
  t.ok(systemSignals.memory(0) < 1)
})
