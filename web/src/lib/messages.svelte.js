// The texts of the panel: one file a language, fetched when it is wanted.
import en from '../messages/en.json?url'
import es from '../messages/es.json?url'
import fa from '../messages/fa.json?url'
import ru from '../messages/ru.json?url'
import { keep, read } from './kept.js'

const FILES = { en, es, ru, fa }
const PLACE = 'localStorage'
const KEY = 'madmail-language'

export const LANGUAGES = { en: 'English', es: 'Español', ru: 'Русский', fa: 'فارسی' }
export const language = $state({ code: 'en' })

/** The texts by key. A page that is drawn anew has those of another language. */
export const T = {}

/** The language that was chosen here, else the browser's, else English. */
export function wanted() {
  const asked = [read(PLACE, KEY), ...navigator.languages.map((tag) => tag.split('-')[0])]
  return asked.find((code) => code in FILES) ?? 'en'
}

/** Change to a language; the page stays as it is when its texts cannot be fetched. */
export async function speak(code, chosen = false) {
  const response = await fetch(FILES[code], { credentials: 'omit' })
  if (!response.ok) return
  Object.assign(T, await response.json())
  language.code = code
  document.documentElement.lang = code
  document.documentElement.dir = code === 'fa' ? 'rtl' : 'ltr'
  if (chosen) keep(PLACE, KEY, code)
}

/** A text with its {places} filled in. */
export function t(key, values = {}) {
  const text = T[key] ?? key
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '')
}
