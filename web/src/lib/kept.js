// What is kept in the browser: for good (localStorage) or for this tab (sessionStorage).
// Private windows may keep nothing.

export function read(place, key) {
  try {
    return window[place].getItem(key) ?? ''
  } catch {
    return ''
  }
}

/** Keep a text; an empty one is removed. */
export function keep(place, key, text) {
  try {
    if (text) window[place].setItem(key, text)
    else window[place].removeItem(key)
  } catch {
    // then it is gone with this page
  }
}
