import t from 'tap'
import { closeBrowser, noBrowser, openPage } from '../support/browser.ts'
import { startGateway } from '../support/gateway.ts'
import { token } from '../support/tokens.ts'
import { until } from '../support/until.ts'

t.teardown(closeBrowser)

t.test(
  'DOC-04 DOC-08 in a browser: an operation is tried out with a token, and succeeds',
  { skip: noBrowser },
  async t => {
    const { gateway, port } = await startGateway(t, {})
    const { page, complaints } = await openPage(t)
    const origin = `http://127.0.0.1:${port}`
    const elsewhere: string[] = []
    page.on('request', request => {
      if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).origin !== origin)
        elsewhere.push(request.url())
    })
    await page.goto(`${origin}/docs`)
    await page.locator('button.authorize').first().click()
    await page
      .locator('.auth-container', { hasText: 'bearer' })
      .locator('input')
      .fill(token({ roles: ['admin'] }))
    await page.locator('.auth-container', { hasText: 'bearer' }).locator('button[type=submit]').click()
    await page.locator('.btn-done').first().click()
    const operation = page.locator('.opblock', { hasText: '/gateway/status' })
    await operation.locator('.opblock-summary-control').click()
    await operation.locator('button.execute').click()
    const answer = operation.locator('.live-responses-table')
    await answer.waitFor()
    t.match(await answer.innerText(), /\b200\b/)
    t.match(await answer.innerText(), gateway.snapshot.version)
    t.strictSame(complaints, [])
    t.strictSame(elsewhere, [])
  }
)

t.test('DOC-04 DOC-08 in a browser: what may not be tried out says so', { skip: noBrowser }, async t => {
  const { port } = await startGateway(t, {})
  const { page } = await openPage(t)
  await page.goto(`http://127.0.0.1:${port}/api/docs#/Gateway/getGatewayStatus`)
  const operation = page.locator('.opblock', { hasText: '/gateway/status' })
  await operation.locator('button.execute').click()
  const answer = operation.locator('.live-responses-table')
  await answer.waitFor()
  t.match(await answer.innerText(), /\b401\b[\s\S]*authentication_required/)
})

t.test(
  'DOC-01 DOC-08 in a browser: ReDoc shows all operations, and asks nobody else for anything',
  { skip: noBrowser },
  async t => {
    const { port } = await startGateway(t, { gateway: { title: 'Engineering AI Agent API' } })
    const { page, complaints } = await openPage(t)
    const elsewhere: string[] = []
    page.on('response', response => {
      if (!/^(data|blob):/.test(response.url()) && !response.url().startsWith(`http://127.0.0.1:${port}/`))
        elsewhere.push(response.url())
    })
    await page.goto(`http://127.0.0.1:${port}/redoc`)
    await page.locator('h1', { hasText: 'Engineering AI Agent API' }).waitFor()
    await page.locator('h2', { hasText: 'Takes a token back' }).waitFor()
    await page.locator('input[type=text]').first().fill('revocations')
    await page.locator('[role=menuitem]', { hasText: 'Takes a token back' }).first().waitFor()
    t.strictSame(elsewhere, [])
    t.strictSame(
      complaints.filter(text => !text.includes('cdn.redoc.ly')),
      [],
      'its own logo is the only thing it does not get'
    )
  }
)

t.test('DOC-01 in a browser: a registered service’s endpoints are shown', { skip: noBrowser }, async t => {
  const { port, call } = await startGateway(t, { storage: { database: true } })
  const endpoints = [{ path: '/projects', method: 'GET', name: 'list_projects', public: true }]
  const { json } = await call('/services', {
    method: 'POST',
    token: token({ roles: ['admin'] }),
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'project-coordinator', base_url: 'http://192.0.2.10:8080', endpoints })
  })
  const { page, complaints } = await openPage(t)
  await page.goto(`http://127.0.0.1:${port}/docs/${json.id}`)
  await page.locator('.opblock', { hasText: '/api/v1/projects' }).waitFor()
  t.match(await page.locator('.title').first().innerText(), /project-coordinator/)
  t.strictSame(complaints, [])
})

t.test('DOC-07 in a browser: the pages may be framed by ours, and by nobody else’s', { skip: noBrowser }, async t => {
  const { port } = await startGateway(t, {})
  const { page } = await openPage(t)
  for (const [origin, framed] of [
    [`http://127.0.0.1:${port}`, true],
    ['http://elsewhere.example', false]
  ] as const) {
    await page.route(`${origin}/dashboard`, route =>
      route.fulfill({ contentType: 'text/html', body: `<iframe src="http://127.0.0.1:${port}/docs"></iframe>` })
    )
    await page.goto(`${origin}/dashboard`)
    if (framed) await page.frameLocator('iframe').locator('.opblock').first().waitFor()
    else await until(() => page.frames().some(frame => frame.url().startsWith('chrome-error:')))
    t.equal((await page.frameLocator('iframe').locator('.opblock').count()) > 0, framed)
  }
})
