import { type Browser, chromium, type Page } from 'playwright-core'
import type { Test } from 'tap'

/** Why the tests that need a browser are skipped, for tap; false when there is one. */
export const noBrowser =
  process.env.CHROMIUM === undefined && 'no Chromium: apt install chromium, or set CHROMIUM; see test/README.md'

let browser: Promise<Browser> | undefined

/** A page of a browser without a window, for as long as the test runs, and what it complains of. */
export async function openPage(
  t: Test,
  options: { javaScriptEnabled?: boolean } = {}
): Promise<{ page: Page; complaints: string[] }> {
  browser ??= chromium.launch({
    executablePath: process.env.CHROMIUM as string,
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu']
  })
  const context = await (await browser).newContext(options)
  const page = await context.newPage()
  const complaints: string[] = []
  page.on('console', message => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  page.on('pageerror', error => complaints.push(error.message))
  t.teardown(() => context.close())
  return { page, complaints }
}

/** Ends the browser that tests of a file have shared. */
export async function closeBrowser(): Promise<void> {
  await (await browser)?.close()
  browser = undefined
}
