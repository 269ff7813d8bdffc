"""Pages for people: the chat, sign-in and errors. They call the API from the browser, and know no stored rows."""
