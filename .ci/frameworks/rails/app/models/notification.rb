class Notification < ActiveRecord::Base
  self.table_name = "rowcast.notifications"
  self.primary_key = "id"
  self.ignored_columns = ["xid"]
end
