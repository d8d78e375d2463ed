import http, { type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

/** An HTTP server that can go away and come back at its port, for as long as the test runs. */
export async function startLoopback(t: Test, listener: RequestListener) {
  let port = 0
  let server: http.Server | undefined
  const start = async (): Promise<void> => {
    const opened = http.createServer(listener)
    await new Promise<void>(resolve => opened.listen(port, '127.0.0.1', resolve))
    port = (opened.address() as AddressInfo).port
    server = opened
  }
  const stop = async (): Promise<void> => {
    const closing = server
    server = undefined
    if (closing === undefined) return
    const closed = new Promise(resolve => closing.close(resolve))
    closing.closeAllConnections()
    await closed
  }
  await start()
  t.teardown(stop)
  return { url: `http://127.0.0.1:${port}`, start, stop }
}
