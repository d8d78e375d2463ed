import { hash } from 'node:crypto'

/**
 * The pages that people see: made here, complete in themselves, the same without JavaScript, which they have none of.
 */

const STYLE = `
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{margin:0;display:grid;place-items:center;min-height:100vh;background:Canvas;color:CanvasText}
main{width:min(24rem,calc(100vw - 3rem));padding:1.5rem 0}
h1{font-size:1.4rem;margin:0 0 1rem}
label{display:block;margin:0 0 1rem;font-weight:600}
input{display:block;width:100%;box-sizing:border-box;margin-top:.25rem;padding:.6rem;font:inherit;border:1px solid GrayText;border-radius:.4rem}
button{font:inherit;font-weight:600;padding:.6rem 1.2rem;margin:.25rem .5rem .25rem 0;border:1px solid GrayText;border-radius:.4rem;cursor:pointer}
button.main{background:#1d4ed8;border-color:#1d4ed8;color:#fff}
:focus-visible{outline:3px solid #60a5fa;outline-offset:2px}
[role=alert]{border-left:4px solid #dc2626;padding:.25rem .75rem;margin:0 0 1rem}
ul{padding-left:1.2rem}
.quiet{color:GrayText;font-size:.9rem;overflow-wrap:anywhere}
`

const STYLE_HASH = hash('sha256', STYLE, 'base64')

/**
 * What the pages may do: nothing but look like this, and send their form here.
 * @param formTargets further origins to which the answer to a form may lead: browsers hold redirects against this, too
 */
export function pagePolicy(formTargets: readonly string[] = []): string {
  return [
    "default-src 'none'",
    `style-src 'sha256-${STYLE_HASH}'`,
    `form-action ${["'self'", ...formTargets].join(' ')}`,
    "frame-ancestors 'none'",
    "base-uri 'none'"
  ].join('; ')
}

/** Where the answer to a form may lead, as {@link pagePolicy} takes it. */
export function targetsOf(redirect: unknown): string[] {
  const origin = typeof redirect === 'string' ? URL.parse(redirect)?.origin : undefined
  return origin === undefined ? [] : [origin]
}

/** Header fields of every page. */
export const PAGE_FIELDS = {
  'content-security-policy': pagePolicy(),
  'cache-control': 'no-store',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY'
}

/** What a page says went wrong, and where somebody is asked for something. */
export interface FormState {
  /** Where the form goes. */
  readonly action: string
  /** Who asks: the client's name. */
  readonly client: string
  readonly alert?: string | undefined
}

export function loginPage({ action, client, alert, username = '' }: FormState & { username?: string }): string {
  return layout(
    'Log in',
    `<h1>Log in</h1>
<p><strong>${safe(client)}</strong> wants to know who you are.</p>
${alertOf(alert)}<form method="post" action="${safe(action)}">
<label>Username or e-mail address<input name="username" value="${safe(username)}" autocomplete="username" autocapitalize="none" spellcheck="false" required maxlength="254"${username === '' ? ' autofocus' : ''}></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required maxlength="1024"${username === '' ? '' : ' autofocus'}></label>
<button class="main" name="do" value="login">Log in</button>
<button name="do" value="cancel" formnovalidate>Cancel</button>
</form>`
  )
}

export function secondFactorPage({ action, client, alert, challenge }: FormState & { challenge: string }): string {
  return layout(
    'Second step',
    `<h1>Second step</h1>
<p>To log in for <strong>${safe(client)}</strong>, enter the code of your authenticator app, or a recovery code.</p>
${alertOf(alert)}<form method="post" action="${safe(action)}">
<input type="hidden" name="challenge" value="${safe(challenge)}">
<label>Code<input name="code" autocomplete="one-time-code" inputmode="text" autocapitalize="none" spellcheck="false" required maxlength="64" autofocus></label>
<button class="main" name="do" value="code">Log in</button>
<button name="do" value="cancel" formnovalidate>Cancel</button>
</form>`
  )
}

export function consentPage({
  action,
  client,
  user,
  scopes,
  redirect
}: FormState & { user: string; scopes: readonly string[]; redirect: string }): string {
  const items = scopes.map(scope => `<li>${inWords(scope)}</li>`).join('\n')
  return layout(
    'Allow access',
    `<h1>Allow access?</h1>
<p><strong>${safe(client)}</strong> asks for this in the name of <strong>${safe(user)}</strong>:</p>
<ul>
${items}
</ul>
<form method="post" action="${safe(action)}">
<button class="main" name="do" value="allow">Allow</button>
<button name="do" value="cancel">Refuse</button>
</form>
<p class="quiet">Either way you are sent back to ${safe(redirect)}.</p>`
  )
}

/** @param form oidc-provider's own, which carries the token against forged requests */
export function logoutPage(form: string): string {
  return layout(
    'Log out',
    `<h1>Log out?</h1>
<p>This ends your login here, and the access of every application that came of it.</p>
${form}
<button class="main" form="op.logoutForm" name="logout" value="yes">Log out</button>
<button form="op.logoutForm">Stay</button>`
  )
}

export function loggedOutPage(): string {
  return layout('Done', '<h1>Done</h1>\n<p>You can close this page.</p>')
}

export function errorPage(error: string, description: string | undefined): string {
  const details = description === undefined ? '' : `\n<p>${safe(description)}</p>`
  return layout(
    'This did not work',
    `<h1>This did not work</h1>${details}\n<p class="quiet">Go back to where you came from and try again. (${safe(error)})</p>`
  )
}

const WORDS: Record<string, string> = {
  openid: 'to know who you are',
  profile: 'your name and username',
  email: 'your e-mail address',
  offline_access: 'access while you are away, until you log out',
  roles: '<strong>everything</strong> that your roles allow'
}

function inWords(scope: string): string {
  return Object.hasOwn(WORDS, scope) ? (WORDS[scope] as string) : `the permission <strong>${safe(scope)}</strong>`
}

function alertOf(alert: string | undefined): string {
  return alert === undefined ? '' : `<p role="alert">${safe(alert)}</p>\n`
}

function layout(title: string, content: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
${content}
</main>
</body>
</html>
`
}

/** What others chose, as text and in attributes. */
function safe(text: string): string {
  return text.replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`)
}
