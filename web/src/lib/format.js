// Numbers, sizes and times in the words of the language.
import { language, T } from './messages.svelte.js'

const cache = new Map()

function made(kind, options = {}) {
  const key = `${kind.name} ${language.code} ${JSON.stringify(options)}`
  if (!cache.has(key)) cache.set(key, new kind(language.code, options))
  return cache.get(key)
}

export function number(value, digits = 0) {
  return made(Intl.NumberFormat, { maximumFractionDigits: digits }).format(value)
}

export function percent(part) {
  return made(Intl.NumberFormat, { style: 'percent', maximumFractionDigits: 0 }).format(part)
}

const UNITS = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte']

export function bytes(value) {
  let size = value
  let step = 0
  while (size >= 1000 && step < UNITS.length - 1) {
    size /= 1024
    step += 1
  }
  // Latin units would be torn from Persian numbers.
  const unitDisplay = language.code === 'fa' ? 'long' : step ? 'short' : 'narrow'
  const maximumFractionDigits = size < 10 && step ? 1 : 0
  const options = { style: 'unit', unit: UNITS[step], unitDisplay, maximumFractionDigits }
  return made(Intl.NumberFormat, options).format(size)
}

/** A time of day and date; Unix seconds or RFC 3339. */
export function moment(value) {
  if (!value) return T.never
  const date = typeof value === 'number' ? new Date(value * 1000) : new Date(value)
  return made(Intl.DateTimeFormat, { dateStyle: 'medium', timeStyle: 'short' }).format(date)
}

export function day(value) {
  const date = new Date(`${value.length === 7 ? `${value}-01` : value}T00:00:00Z`)
  const options = { timeZone: 'UTC', month: 'short' }
  return made(
    Intl.DateTimeFormat,
    value.length === 7 ? { ...options, year: 'numeric' } : { ...options, day: 'numeric' },
  ).format(date)
}

const STEPS = [
  ['day', 86400],
  ['hour', 3600],
  ['minute', 60],
]

/** How long ago, or in how long; Unix seconds. */
export function ago(value) {
  if (!value) return T.never
  const seconds = value - Date.now() / 1000
  for (const [unit, length] of STEPS) {
    if (Math.abs(seconds) >= length) {
      return made(Intl.RelativeTimeFormat, { numeric: 'auto' }).format(
        Math.trunc(seconds / length),
        unit,
      )
    }
  }
  return T.now
}

/** A day as the relay keeps it of accounts, nothing finer; Unix seconds. */
export function date(value) {
  if (!value) return T.never
  return made(Intl.DateTimeFormat, { dateStyle: 'medium', timeZone: 'UTC' }).format(value * 1000)
}

/** How many days ago such a day was. */
export function daysAgo(value) {
  const days = Math.floor(value / 86400) - Math.floor(Date.now() / 86_400_000)
  return made(Intl.RelativeTimeFormat, { numeric: 'auto' }).format(days, 'day')
}

/** A length of time in its two largest units. */
export function duration(seconds) {
  const parts = []
  let rest = seconds
  for (const [unit, length] of STEPS) {
    const count = Math.floor(rest / length)
    rest -= count * length
    if (count || (unit === 'minute' && !parts.length)) {
      parts.push(
        made(Intl.NumberFormat, { style: 'unit', unit, unitDisplay: 'short' }).format(count),
      )
    }
  }
  return parts.slice(0, 2).join(' ')
}
