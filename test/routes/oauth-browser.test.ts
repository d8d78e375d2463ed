import http from 'node:http'
import type { AddressInfo } from 'node:net'
import * as openid from 'openid-client'
import t, { type Test } from 'tap'
import { closeBrowser, noBrowser, openPage } from '../support/browser.ts'
import { addUser, discover, PASSWORD, startOAuth } from '../support/oauth.ts'

t.teardown(closeBrowser)

/** The app that users come from and go back to. */
async function startApp(t: Test): Promise<string> {
  const server = http.createServer((_request, response) => response.end('back at the app'))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/callback`
}

for (const javaScriptEnabled of [true, false]) {
  t.test(
    `IDN-27 in a browser ${javaScriptEnabled ? 'with' : 'without'} JavaScript: log in, agree, go back, log out`,
    { skip: noBrowser },
    async t => {
      const callback = await startApp(t)
      const app = {
        id: 'app',
        name: 'The App',
        token_endpoint_auth_method: 'none',
        redirect_uris: [callback],
        post_logout_redirect_uris: [callback],
        scopes: ['openid', 'profile', 'orders.read']
      }
      const gateway = await startOAuth(t, { clients: [app] })
      await addUser(gateway, 'alice', { roles: { staff: ['orders.read'] } })
      const config = await discover(gateway.issuer, 'app')
      const { page, complaints } = await openPage(t, { javaScriptEnabled })
      const elsewhere: string[] = []
      const origins = [new URL(gateway.issuer).origin, new URL(callback).origin]
      page.on('request', request => {
        if (!origins.includes(new URL(request.url()).origin)) elsewhere.push(request.url())
      })

      const verifier = openid.randomPKCECodeVerifier()
      const state = openid.randomState()
      const url = openid.buildAuthorizationUrl(config, {
        redirect_uri: callback,
        scope: 'openid profile orders.read',
        code_challenge: await openid.calculatePKCECodeChallenge(verifier),
        code_challenge_method: 'S256',
        state
      })
      await page.goto(url.href)
      t.equal(await page.title(), 'Log in')
      await page.getByLabel('Username or e-mail address').fill('alice')
      await page.getByLabel('Password').fill('wrong')
      await page.getByRole('button', { name: 'Log in' }).click()
      t.match(await page.getByRole('alert').innerText(), 'That is not right')
      t.equal(await page.getByLabel('Username or e-mail address').inputValue(), 'alice')
      await page.getByLabel('Password').fill(PASSWORD)
      // Whoever presses Enter logs in, and does not cancel.
      await page.getByLabel('Password').press('Enter')
      await page.getByRole('heading', { name: 'Allow access?' }).waitFor()
      const asked = await page.getByRole('main').innerText()
      for (const words of ['The App', 'alice', 'your name and username', 'orders.read', new URL(callback).origin])
        t.match(asked, words)
      await page.getByRole('button', { name: 'Allow' }).click()
      await page.waitForURL(`${callback}**`)
      const tokens = await openid.authorizationCodeGrant(config, new URL(page.url()), {
        pkceCodeVerifier: verifier,
        expectedState: state
      })
      t.equal((await gateway.call('/read', { token: tokens.access_token })).status, 200)

      const out = openid.buildEndSessionUrl(config, {
        id_token_hint: tokens.id_token as string,
        post_logout_redirect_uri: callback
      })
      await page.goto(out.href)
      await page.getByRole('button', { name: 'Log out' }).click()
      await page.waitForURL(`${callback}**`)
      t.equal((await gateway.call('/read', { token: tokens.access_token })).status, 401)
      // A refused password is a 403, which the console of a browser mentions.
      t.strictSame(
        complaints.filter(complaint => !/status of 403/.test(complaint)),
        []
      )
      t.strictSame(
        elsewhere.filter(url => !url.endsWith('/favicon.ico')),
        []
      )
    }
  )
}
