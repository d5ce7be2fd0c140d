// The admin API: one POST, see docs/reference/admin-api.md. The token is kept for this tab only.
import { number } from './format.js'
import { keep, read } from './kept.js'
import { t, T } from './messages.svelte.js'

const PLACE = 'sessionStorage'
const KEY = 'madmail-token'
const TIME = 120_000 // milliseconds; long removals answer before

export class Failed extends Error {
  constructor(message, status) {
    super(message)
    this.status = status
  }
}

export const api = $state({
  path: document.querySelector('meta[name="madmail-api"]').content,
  token: read(PLACE, KEY),
  version: '',
  offline: false,
  renewed: false, // the relay has another version than this page
  farewell: '', // why somebody was logged out
})

/** The body of the answer of /admin/RESOURCE. Raises Failed with the text of the relay. */
export async function call(method, resource, body = {}, token = api.token) {
  const headers = { Authorization: `Bearer ${token}` }
  let response
  try {
    response = await fetch(api.path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ method, resource: `/admin/${resource}`, headers, body }),
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      signal: AbortSignal.timeout(TIME),
    })
  } catch {
    api.offline = true
    throw new Failed(T.unreachable, 0)
  }
  let answer
  try {
    answer = await response.json()
  } catch {
    throw new Failed(t('no_api', { status: response.status, path: api.path }), response.status)
  }
  api.offline = false
  if (api.version && answer.version !== api.version) api.renewed = true
  api.version = answer.version
  if (answer.error !== null) {
    const seconds = response.headers.get('Retry-After')
    const more = seconds ? ` ${t('retry_after', { seconds: number(Number(seconds)) })}` : ''
    if (answer.status === 401 && token === api.token) leave(T.token_refused)
    throw new Failed(`${answer.error}${more}`, answer.status)
  }
  return answer.body
}

/** Raises Failed when the token is wrong. */
export async function enter(token) {
  await call('GET', 'status', {}, token)
  api.token = token
  api.farewell = ''
  keep(PLACE, KEY, token)
}

export function leave(why = '') {
  api.token = ''
  api.farewell = why
  keep(PLACE, KEY, '')
}

/** The token in a login link, see `madmail admin-token`; '' if there is none. */
export function linked(fragment) {
  const text = fragment.replace(/^#/, '')
  if (!/^[A-Za-z0-9_-]{16,}$/.test(text)) return ''
  try {
    const given = JSON.parse(atob(text.replace(/-/g, '+').replace(/_/g, '/')))
    return typeof given.t === 'string' ? given.t : ''
  } catch {
    return ''
  }
}
