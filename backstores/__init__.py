"""The data plane: block requests from the front end to the disks. Imports nothing from appliance or cli."""
