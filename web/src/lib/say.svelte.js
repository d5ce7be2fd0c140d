// Short messages at the edge of the page, and questions before something is destroyed.
export const said = $state([])
export const question = $state({ open: false, title: '', text: '', action: '', answer: null })

let count = 0

function put(text, bad) {
  count += 1
  const one = { id: count, text, bad }
  said.push(one)
  if (!bad) setTimeout(() => drop(one.id), 5000)
}

export const say = (text) => put(text, false)
export const fail = (error) => put(error.message, true)

export function drop(id) {
  const place = said.findIndex((one) => one.id === id)
  if (place >= 0) said.splice(place, 1)
}

/** Whether the operator wants it. */
export function ask(title, text, action) {
  return new Promise((resolve) => {
    Object.assign(question, { open: true, title, text, action, answer: resolve })
  })
}

export async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    // over plain HTTP there is no clipboard but this
    const area = document.createElement('textarea')
    area.value = text
    const host = document.querySelector('dialog[open]') ?? document.body
    host.append(area)
    area.select()
    document.execCommand('copy')
    area.remove()
  }
  say(done)
}

export function save(name, data) {
  const link = document.createElement('a')
  const url = URL.createObjectURL(new Blob([data], { type: 'application/json' }))
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}
