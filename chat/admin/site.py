"""Settings of the admin site itself."""

from django.contrib import admin
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

admin.site.site_header = "Gemma Service"
admin.site.site_title = "Gemma Service"
admin.site.index_title = "Operations"
# Their pages show refresh tokens, which would let an operator act as any user.
admin.site.unregister([OutstandingToken, BlacklistedToken])
admin.site.site_url = "/"  # the chat page
# The index lists the few tables; the width belongs to the conversations.
admin.site.enable_nav_sidebar = False
