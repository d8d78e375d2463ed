import { readdirSync, readFileSync, statSync } from 'node:fs'
import { getHeapStatistics } from 'node:v8'

/** How the process is: what of that which it may have is used, from 0 to 1, and what time it really is. */
export interface Signals {
  /** Monotonic milliseconds, by which the event loop is late or not. */
  time(): number
  /** Of the heap, or of the memory of the container, whichever is nearer to its end. @param limit bytes, instead of the container's; 0 for that */
  memory(limit: number): number
  descriptors(): number
}

const OPEN = '/proc/self/fd'

/** As the operating system tells; 0 where it does not. */
export const systemSignals: Signals = {
  time: () => performance.now(),

  memory(limit) {
    const { used_heap_size: used, heap_size_limit: most } = getHeapStatistics()
    const container = limit === 0 ? constrainedMemory() : limit
    return Math.max(used / most, container === 0 ? 0 : process.memoryUsage.rss() / container)
  },

  descriptors() {
    const most = mostDescriptors()
    return most === 0 ? 0 : openDescriptors() / most
  }
}

/** Since Linux 6.2 the folder's size says how many there are; before that they have to be listed. */
function openDescriptors(): number {
  try {
    return statSync(OPEN).size || readdirSync(OPEN).length
  } catch {
    return 0
  }
}

let descriptorLimit: number | undefined

/** Node has raised it to what it may be by the time anybody asks. */
function mostDescriptors(): number {
  descriptorLimit ??= readDescriptorLimit()
  return descriptorLimit
}

function readDescriptorLimit(): number {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? []
    return Number(soft ?? 0)
  } catch {
    return 0
  }
}

/** What the container may have; 0 where nobody has said so. */
function constrainedMemory(): number {
  const most = process.constrainedMemory()
  // Some kernels say "no limit" by a number that no machine has.
  return most > 2 ** 50 ? 0 : most
}
