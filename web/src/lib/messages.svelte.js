// The texts of the panel: one file a language, fetched when it is wanted.
import en from '../messages/en.json?url'
import es from '../messages/es.json?url'
import fa from '../messages/fa.json?url'
import ru from '../messages/ru.json?url'

const FILES = { en, es, ru, fa }
const KEY = 'madmail-language'

export const LANGUAGES = { en: 'English', es: 'Español', ru: 'Русский', fa: 'فارسی' }
export const language = $state({ code: 'en' })

let texts = $state.raw({})

function kept() {
  try {
    return localStorage.getItem(KEY)
  } catch {
    return null
  }
}

/** The language that was chosen here, else the browser's, else English. */
export function wanted() {
  const asked = [kept(), ...navigator.languages.map((tag) => tag.split('-')[0])]
  return asked.find((code) => code in FILES) ?? 'en'
}

/** Change to a language; the page stays as it is when its texts cannot be fetched. */
export async function speak(code, keep = false) {
  const response = await fetch(FILES[code], { credentials: 'omit' })
  if (!response.ok) return
  texts = await response.json()
  language.code = code
  document.documentElement.lang = code
  document.documentElement.dir = code === 'fa' ? 'rtl' : 'ltr'
  if (keep) {
    try {
      localStorage.setItem(KEY, code)
    } catch {
      // private windows may have no storage
    }
  }
}

/** A text with its {places} filled in. */
export function t(key, values = {}) {
  const text = texts[key] ?? key
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '')
}
