// Loaded into a process by `--import`: writes to $STALLS, at each SIGUSR2, how long its event loop was held at most since the
// last, in milliseconds.
import { writeFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'

const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()
process.on('SIGUSR2', () => {
  writeFileSync(process.env.STALLS, String(delay.max / 1e6))
  delay.reset()
})
